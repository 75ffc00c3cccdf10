"""A scene: its layers, each a raster on the ground of one base grid, and how they are made of files."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from matplotlib import colormaps, colors

from foveate.data import ClassConfig, Georeference, Resolution, VectorsConfig, open_image
from foveate.data.readers.pyramid import are_colours
from foveate.errors import ConfigError, translated
from foveate.geometry import DoubleArray, Size, Window
from foveate.viewer import rendering as draw
from foveate.viewer.inputs import RasterFacts
from foveate.viewer.rendering import NOT_COUNTED, Contrast, Rendering, read_nearest

# Okabe and Ito, for classes without a colour of their own.
CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
LARGE = 50e6  # pixels from which a raster without a pyramid is slow to look at
_STOPS = 9
_SAMPLE = 1024  # pixels a side that are looked at, where a raster does not say what it holds
_MOST_FOUND = 64
_BYTE_OF_ONE = 254  # see foveate.inference.block
_MOST = 8  # bits of a code
_DARK = 0.45  # an image of bytes is dark where nearly all are below this share of 255
_MIDDLE = 0.25
_APART = 0.02  # least share of the codes between black and white
_SPARSE = 4  # stretches, by which a few values are brighter than white if they are what people look for
# Of layers of numbers: title, colours, unit, and the range where it is known before.
_VALUES: dict[str, tuple[str, str, str, tuple[float, float] | None]] = {
    "fov": ("Field of view", "viridis", "px", None),
    "confidence": ("Confidence", "cividis", "", (0, 1)),
    "entropy": ("Entropy", "magma", "", (0, 1)),
    "loss": ("Loss", "magma", "", None),
    "iou": ("IoU", "cividis", "", (0, 1)),
    "probabilities": ("Probability", "cividis", "", (0, 1)),
}
Kind: TypeAlias = Literal[
    "image", "labels", "classes", "errors", "probabilities", "confidence", "entropy", "fov", "loss", "iou", "windows",
    "polygons",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about the files beside their names."""

    # 1-based numbers of the bands shown as red, green and blue, or one for grey; the first three when None
    bands: tuple[int, ...] | None = None
    classes: Sequence[ClassConfig] | None = None  # names and colours; those of the class maps when None
    overlapping: bool | None = None  # whether a pixel may belong to several classes; as the class maps say when None
    # value in the labels -> class id, of overlapping classes -> 0 or 1; the values themselves when None
    label_map: dict[int, int] | None = None
    vectors: VectorsConfig = field(default_factory=VectorsConfig)  # how labels that are polygons are read
    tile: int = 256  # side of the tiles, 64 to 1024


class ClassEntry(NamedTuple):
    """A line of a legend."""

    code: int  # byte in the tiles
    name: str  # shown to people
    color: str  # "#rrggbb"; empty is not drawn
    share: float | None = None  # of the pixels, where a summary says so


class Scale(NamedTuple):
    """What the codes of a layer of values mean."""

    low: float  # values of the codes 1 and 255; 0 is unknown
    high: float
    unit: str  # shown after a value
    stops: tuple[str, ...]  # colours "#rrggbb" from low to high, evenly spaced


class Tone(NamedTuple):
    """How bright a picture is drawn at first."""

    contrasts: tuple[Contrast, ...] = (Contrast(),)  # one for all bands, or one for each of red, green and blue
    gamma: float = 1  # above 1 lifts what is dark


class Look(NamedTuple):
    """Passes of one way of looking: of a pixel of their layer, whose code has the bit, the used part begins at it."""

    code: int  # the bit; also that of its line in the legend
    view: float  # field of view, base pixels
    side: float  # of the central part that is used, base pixels


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster to show."""

    kind: Kind  # what it is; the same kind of two predictions is switched on and off together
    title: str  # shown to people
    rendering: Rendering  # makes its tiles
    size: Size  # of the raster
    pixel: float = 1  # side of one of its pixels, in pixels of the base grid
    prediction: int | None = None  # index of the prediction it belongs to; None is shown with all
    classes: Sequence[ClassEntry] = ()  # legend of ids; empty for others
    scale: Scale | None = None  # legend of values; None for others
    # which of several layers of one kind it is, of which one is shown at a time; empty where there is one
    option: str = ""
    sets: bool = False  # whether codes are sets: bit k is the class with code k. 255 is not counted.
    looks: Sequence[Look] = ()  # of a layer of windows, narrowest first; such a layer is outlined, not coloured
    tone: Tone | None = None  # of a picture
    border: int = 0  # added to the code of a polygon on its border; 0 for other layers
    shown: bool = False  # whether it is on at first
    opacity: float = 1  # at first


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a view shows."""

    title: str  # name of the image
    size: Size  # of the base grid: the image, or the class map where there is no image
    layers: tuple[Layer, ...]  # from the lowest to the topmost
    predictions: tuple[str, ...] = ()  # their names
    resolution: Resolution | None = None  # of a base pixel, or None
    georeference: Georeference | None = None  # of the base grid, or None
    notices: tuple[str, ...] = field(default=())  # what should be said to whoever opens it
    tile: int = 256  # side of the tiles


def category(number: int) -> str:
    """A colour for a class without one; after eight they repeat."""
    return CATEGORIES[number % len(CATEGORIES)]


@cache
def stops(name: str) -> tuple[str, ...]:
    """Colours of one of matplotlib's maps, evenly spaced: those of viridis, cividis and magma rise in lightness."""
    colours = colormaps[name]
    return tuple(colors.to_hex(colours(number / (_STOPS - 1))) for number in range(_STOPS))


def run_legend(classes: Sequence[ClassConfig]) -> tuple[ClassEntry, ...]:
    """The legend that a run's configuration gives."""
    return tuple(ClassEntry(code, item.name, item.color) for code, item in enumerate(classes))


def class_legend(facts: RasterFacts) -> tuple[ClassEntry, ...]:
    """The legend of a class map: its colour table and its tags class_0, ...; else the ids that a sample of it holds."""
    ids = sorted({*facts.class_names} | {*facts.palette}) or _found(facts)
    return tuple(
        ClassEntry(
            code,
            facts.class_names.get(code, f"class {code}"),
            # The blacks at the end of a colour table are not known to be meant.
            "#{:02x}{:02x}{:02x}".format(*facts.palette.get(code, (0, 0, 0))) if facts.palette else category(place),
        )
        for place, code in enumerate(ids)
        if code < NOT_COUNTED
    )


def with_shares(
    legend: Sequence[ClassEntry], summary: dict[str, Any], total: int | None = None
) -> tuple[ClassEntry, ...]:
    """The legend with the share of each class of `total` pixels, or of all that are counted, where the summary says."""
    pixels = summary.get("class_pixels")
    counted = total or (sum(pixels.values()) if isinstance(pixels, dict) else 0)
    if not isinstance(pixels, dict) or not counted:
        return tuple(legend)
    return tuple(entry._replace(share=pixels.get(entry.name, 0) / counted) for entry in legend)


def _found(facts: RasterFacts) -> list[int]:
    with open_image(facts.path) as reader:
        sample = read_nearest(reader, Window.of(facts.size), _at_most(_SAMPLE, facts.size))[0]
    return [int(value) for value in np.unique(sample) if 0 <= value < NOT_COUNTED][:_MOST_FOUND]


def _at_most(side: int, size: Size) -> Size:
    return Size(min(side, size.height), min(side, size.width))


def value_layers(kind: str, facts: RasterFacts, pixel: float, summary: dict[str, Any]) -> Iterator[Layer]:
    """The layer of a raster of numbers; of probabilities one for each class."""
    title, colors, unit, span = _VALUES[kind]
    low, high = span or _span(facts, _views(facts, summary) if kind == "fov" else [])
    gain = facts.gain
    if facts.dtype == np.uint8 and gain == 1 and span:
        gain = 1 / _BYTE_OF_ONE
    names = dict(enumerate(facts.descriptions, start=1))
    for band in range(1, facts.bands + 1 if kind == "probabilities" else 2):
        yield Layer(
            cast("Kind", kind),
            title,
            draw.values(facts.path, (low, high), band, gain=gain, offset=facts.offset, unknown=facts.unknown),
            facts.size,
            pixel,
            scale=Scale(low, high, unit, stops(colors)),
            option=names.get(band) or f"band {band}" if kind == "probabilities" else "",
            opacity=0.7,
        )


def _views(facts: RasterFacts, summary: dict[str, Any]) -> list[float]:
    """Fields of view, ascending, as the summary or the file says."""
    given = summary.get("fields_of_view")
    if given is None:
        with suppress(ValueError):
            given = json.loads(facts.tags.get("fields_of_view", "null"))
    wanted = given if isinstance(given, list) else []
    return sorted(view for view in wanted if isinstance(view, int | float) and view >= 1)


def _span(facts: RasterFacts, views: list[float]) -> tuple[float, float]:
    """From the first to the last field of view; else from 0 to what 98 % of the values stay below."""
    if len(views) > 1:
        return float(views[0]), float(views[-1])
    with open_image(facts.path) as reader:
        values = reader.read(Window.of(facts.size), _at_most(_SAMPLE, facts.size))[0].astype(np.float64)
    known = values[np.isfinite(values)]
    high = float(f"{np.percentile(known, 98):.2g}") if known.size else 1.0
    return 0.0, high if high > 0 else 1.0


def windows_layer(facts: RasterFacts, pixel: float) -> Layer:
    """The layer of a map of passes, see `foveate.looks.passes`."""
    with translated(ConfigError, f"{facts.path} does not say which looks its bands are", "predict again"):
        pairs = [(int(view), int(side)) for view, side in json.loads(facts.tags["looks"])]
    if not 1 <= len(pairs) <= min(_MOST, facts.bands) or min(min(pair) for pair in pairs) < 1:
        raise ConfigError(f"{facts.path} names {len(pairs)} looks in {facts.bands} bands; 1 to {_MOST} can be shown")
    # Evenly spaced in the colours of the foveation map, whose narrowest is its darkest.
    views, colors = sorted({view for view, _ in pairs}), stops("viridis")
    step = (len(colors) - 1) / max(1, len(views) - 1)
    # Lengths are in pixels of the prediction, which may be coarser than the image.
    unit = pixel / float(facts.tags.get("cell", pixel))
    legend, looks = [], []
    for place, (view, side) in enumerate(pairs):
        name = f"{view} px wide" + (f", central {side} used" if side < view else "")
        legend.append(ClassEntry(1 << place, name, colors[round(views.index(view) * step)]))
        looks.append(Look(1 << place, view * unit, side * unit))
    drawn = draw.passes(facts.path, len(pairs))
    return Layer("windows", "Windows", drawn, facts.size, pixel, classes=tuple(legend), looks=tuple(looks))


def bands_shown(facts: RasterFacts, bands: Sequence[int] | None) -> tuple[int, ...]:
    """The bands, from 1, that are red, green and blue, or one for grey; when none are given the first ones."""
    if bands is None:
        return (1, 2, 3) if facts.bands >= 3 else (1,)
    if len(bands) not in (1, 3) or not all(1 <= band <= facts.bands for band in bands):
        given = ", ".join(map(str, bands))
        raise ConfigError(
            f"--bands {given}: give one or three numbers from 1 to {facts.bands}, the bands of {facts.place}"
        )
    return tuple(bands)


def image_layer(facts: RasterFacts, bands: Sequence[int] | None) -> Layer:
    """The layer of an image; its first three bands when none are given."""
    chosen = bands_shown(facts, bands)
    tone = _tone(facts, chosen)
    picture = draw.picture(facts.path, chosen * (3 // len(chosen)), tone.contrasts)
    return Layer("image", "Image", picture, facts.size, tone=tone, shown=True)


def _tone(facts: RasterFacts, bands: Sequence[int]) -> Tone:
    """One contrast for the colours of a picture, which it would shift otherwise; each other band has its own.

    Bytes stay as they are, unless all are dark.
    """
    if facts.dtype == np.uint8 and facts.stored_levels == 0 and facts.size.pixels > LARGE:
        return Tone()  # it would be decoded once more
    names = [facts.band_names[band - 1] if any(facts.band_names) else "" for band in bands]
    seen = _sampled(facts, bands)
    if len(bands) == 1 or are_colours(names, facts.dtype):
        names, seen = [""], [np.concatenate(seen)]
    else:
        names = [name or f"band {band}" for name, band in zip(names, bands, strict=True)]
    contrast = _of_bytes if facts.dtype == np.uint8 else _stretched
    found = [contrast(name, one, facts.dtype) for name, one in zip(names, seen, strict=True)]
    return Tone(tuple(one for one, _ in found), min(gamma for _, gamma in found))


def _stretched(name: str, seen: DoubleArray, dtype: np.dtype[Any]) -> tuple[Contrast, float]:
    """From the 2nd to the 98th percentile, or to rare bright values; and the gamma."""
    values = draw.spread(seen, dtype)
    if not seen.size:
        return Contrast(name, tuple(values)), 1
    black, middle, white, bright = np.percentile(seen, [2, 50, 98, 99.9])
    if bright - white > _SPARSE * (white - black):
        white = bright  # cells on a dark ground: not the noise of the ground
    ends = [black, white if white > black else seen.max(), seen.min(), seen.max()]
    first, last, low, high = (float(share) for share in np.interp(ends, values, np.linspace(0, 1, 256)))
    return Contrast(name, tuple(values), first, max(last, first + _APART), (low, high)), _gamma(middle, black, white)


def _of_bytes(name: str, seen: DoubleArray, dtype: np.dtype[Any]) -> tuple[Contrast, float]:
    shares = seen / np.iinfo(dtype).max
    if not shares.size or np.percentile(shares, 98) > _DARK:
        return Contrast(name), 1
    black, middle, white = np.percentile(shares, [2, 50, 98])
    white = max(white, black + _APART)
    return Contrast(name, black=float(black), white=float(white)), _gamma(middle, black, white)


def _gamma(middle: float, black: float, white: float) -> float:
    """The middle value becomes a dark grey, unless it is brighter; more than twice would show little but noise."""
    share = np.clip((middle - black) / (white - black), 1e-3, _MIDDLE) if white > black else _MIDDLE
    return float(min(np.log(share) / np.log(_MIDDLE), 2))


def _sampled(facts: RasterFacts, bands: Sequence[int]) -> list[DoubleArray]:
    """Values of each band that mean something, of the whole image, or of its middle if that would take long to read."""
    window = Window.of(facts.size)
    if facts.stored_levels <= 1 and facts.size.pixels > LARGE:
        window = window.centred(_SAMPLE)
    with open_image(facts.path) as reader:
        pixels, there = reader.read_known(window, _at_most(_SAMPLE, window.size))
    known = (pixels[band - 1] if there is None else pixels[band - 1][there[band - 1]] for band in bands)
    return [values[np.isfinite(values)] for values in (one.reshape(-1).astype(np.float64) for one in known)]
