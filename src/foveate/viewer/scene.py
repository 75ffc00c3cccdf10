"""A scene: the layers that are shown, each a raster on the ground of one base grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from foveate.data.readers import Georeference
from foveate.geometry import Size
from foveate.viewer.rendering import Rendering

Kind: TypeAlias = Literal[
    "image", "labels", "classes", "errors", "confidence", "entropy", "fov", "loss", "iou"
]  # fmt: skip


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
    shown: bool = False
    opacity: float = 1


@dataclass(frozen=True, slots=True)
class Targets:
    """The windows a prediction was planned with: a target each cell of this grid, seen at one of the views.

    Attributes:
        side: of a target, base pixels.
        views: fields of view to choose from, ascending, base pixels.
    """

    side: int
    views: tuple[int, ...]


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
        targets: of each prediction, or None where it is not known.
        notices: what should be said to whoever opens it.
        tile: side of the tiles.
    """

    title: str
    size: Size
    layers: tuple[Layer, ...]
    predictions: tuple[str, ...] = ()
    resolution: tuple[float, float] | None = None
    georeference: Georeference | None = None
    targets: tuple[Targets | None, ...] = ()
    notices: tuple[str, ...] = field(default=())
    tile: int = 256
