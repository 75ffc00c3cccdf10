"""A scene: the layers that are shown, each a raster on the ground of one base grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from foveate.data.readers import Georeference
from foveate.data.sections import ClassConfig, VectorsConfig
from foveate.geometry import Size
from foveate.viewer.rendering import Rendering

Kind: TypeAlias = Literal[
    "image", "labels", "classes", "errors", "probabilities", "confidence", "entropy", "fov", "loss", "iou", "windows",
    "polygons",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about the files beside their names.

    Attributes:
        bands: 1-based numbers of the bands shown as red, green and blue, or one for grey; the first three when None.
        classes: names and colours; those of the class maps when None.
        overlapping: whether a pixel may belong to several classes; as the class maps say when None.
        label_map: value in the labels -> class id, of overlapping classes -> 0 or 1; the values themselves when None.
        vectors: how labels that are polygons are read.
        tile: side of the tiles, 64 to 1024.
    """

    bands: tuple[int, ...] | None = None
    classes: Sequence[ClassConfig] | None = None
    overlapping: bool | None = None
    label_map: dict[int, int] | None = None
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    tile: int = 256


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """A line of a legend.

    Attributes:
        code: byte in the tiles.
        name: shown to people.
        color: "#rrggbb"; empty is not drawn.
        share: of the pixels, where a summary says so.
    """

    code: int
    name: str
    color: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """What the codes of a layer of values mean.

    Attributes:
        low, high: values of the codes 1 and 255; 0 is unknown.
        unit: shown after a value.
        stops: colours "#rrggbb" from low to high, evenly spaced.
    """

    low: float
    high: float
    unit: str
    stops: tuple[str, ...]


class Tone(NamedTuple):
    """How bright a picture is drawn at first.

    Attributes:
        low, high: values of the file that its tiles show as black and as white.
        black, white: shares of that range that become black and white.
        gamma: above 1 lifts what is dark.
    """

    low: float = 0
    high: float = 255
    black: float = 0
    white: float = 1
    gamma: float = 1


class Look(NamedTuple):
    """Passes of one way of looking: of a pixel of their layer, whose code has the bit, the used part begins at it.

    Attributes:
        code: the bit; also that of its line in the legend.
        view: field of view, base pixels.
        side: of the central part that is used, base pixels.
    """

    code: int
    view: float
    side: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster to show.

    Attributes:
        kind: what it is; the same kind of two predictions is switched on and off together.
        title: shown to people.
        rendering: makes its tiles.
        size: of the raster.
        pixel: side of one of its pixels, in pixels of the base grid.
        prediction: index of the prediction it belongs to; None is shown with all.
        classes: legend of ids; empty for others.
        scale: legend of values; None for others.
        option: which of several layers of one kind it is, of which one is shown at a time; empty where there is one.
        sets: whether codes are sets: bit k is the class with code k. 255 is not counted.
        looks: of a layer of windows, narrowest first; such a layer is outlined, not coloured.
        tone: of a picture.
        border: added to the code of a polygon on its border; 0 for other layers.
        shown: whether it is on at first.
        opacity: at first.
    """

    kind: Kind
    title: str
    rendering: Rendering
    size: Size
    pixel: float = 1
    prediction: int | None = None
    classes: Sequence[ClassEntry] = ()
    scale: Scale | None = None
    option: str = ""
    sets: bool = False
    looks: Sequence[Look] = ()
    tone: Tone | None = None
    border: int = 0
    shown: bool = False
    opacity: float = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a view shows.

    Attributes:
        title: name of the image.
        size: of the base grid: the image, or the class map where there is no image.
        layers: from the lowest to the topmost.
        predictions: their names.
        resolution: metres that a base pixel is high and wide, or None.
        georeference: of the base grid, or None.
        notices: what should be said to whoever opens it.
        tile: side of the tiles.
    """

    title: str
    size: Size
    layers: tuple[Layer, ...]
    predictions: tuple[str, ...] = ()
    resolution: tuple[float, float] | None = None
    georeference: Georeference | None = None
    notices: tuple[str, ...] = field(default=())
    tile: int = 256
