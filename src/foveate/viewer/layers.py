"""Layers of images, classes, numbers and windows that were passed, with their legends, ranges and colours."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from foveate.data.readers import open_image
from foveate.data.sections import ClassConfig
from foveate.errors import ConfigError
from foveate.geometry import Size, Window, ceil_div
from foveate.viewer import rendering as draw
from foveate.viewer.inputs import RasterFacts
from foveate.viewer.rendering import NOT_COUNTED, read_nearest
from foveate.viewer.scene import ClassEntry, Kind, Layer, Look, Scale, Tone

# Okabe and Ito, for classes without a colour of their own.
CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
_STOPS = 9
_SAMPLE = 512  # pixels a side that are looked at, where a raster does not say which ids it holds
_MOST_FOUND = 64


def category(number: int) -> str:
    """A colour for a class without one; after eight they repeat."""
    return CATEGORIES[number % len(CATEGORIES)]


@cache
def stops(name: str) -> tuple[str, ...]:
    """Colours of one of matplotlib's maps, evenly spaced: those of viridis, cividis and magma rise in lightness."""
    colours = colormaps[name]
    return tuple(to_hex(colours(number / (_STOPS - 1))) for number in range(_STOPS))


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
    height, width = min(_SAMPLE, facts.size.height), min(_SAMPLE, facts.size.width)
    with open_image(facts.path) as reader:
        sample = read_nearest(reader, Window.of(facts.size), Size(height, width))[0]
    return [int(value) for value in np.unique(sample) if 0 <= value < NOT_COUNTED][:_MOST_FOUND]


_BYTE_OF_ONE = 254  # see foveate.inference.block


# Title, colours, unit, and the range where it is known before.
_VALUES: dict[str, tuple[str, str, str, tuple[float, float] | None]] = {
    "fov": ("Field of view", "viridis", "px", None),
    "confidence": ("Confidence", "cividis", "", (0, 1)),
    "entropy": ("Entropy", "magma", "", (0, 1)),
    "loss": ("Loss", "magma", "", None),
    "iou": ("IoU", "cividis", "", (0, 1)),
    "probabilities": ("Probability", "cividis", "", (0, 1)),
}


def value_layers(kind: str, facts: RasterFacts, pixel: float, summary: dict[str, Any]) -> Iterator[Layer]:
    """The layer of a raster of numbers; of probabilities one for each class."""
    title, colors, unit, span = _VALUES[kind]
    low, high = span or _span(facts, _views(facts, summary) if kind == "fov" else ())
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


def _views(facts: RasterFacts, summary: dict[str, Any]) -> tuple[int, ...]:
    given = summary.get("fields_of_view")
    if given is None:
        try:
            given = json.loads(facts.tags.get("fields_of_view", "null"))
        except ValueError:
            given = None
    wanted = given if isinstance(given, list) else []
    return tuple(sorted(int(view) for view in wanted if isinstance(view, int | float) and view >= 1))


def _span(facts: RasterFacts, views: tuple[int, ...]) -> tuple[float, float]:
    """From the first to the last field of view; else from 0 to what 98 % of the values stay below."""
    if len(views) > 1:
        return float(views[0]), float(views[-1])
    size = Size(min(_SAMPLE, facts.size.height), min(_SAMPLE, facts.size.width))
    with open_image(facts.path) as reader:
        values = reader.read(Window.of(facts.size), size)[0].astype(np.float64)
    known = values[np.isfinite(values)]
    high = float(f"{np.percentile(known, 98):.2g}") if known.size else 1.0
    return 0.0, high if high > 0 else 1.0


_MOST = 8  # bits of a code


def windows_layer(facts: RasterFacts, pixel: float) -> Layer:
    """The layer of a map of passes, see `foveate.looks.passes`."""
    pairs = _looks(facts)
    views = sorted({view for view, _ in pairs})
    legend = tuple(
        ClassEntry(1 << place, _name(view, side), _color(views.index(view), len(views)))
        for place, (view, side) in enumerate(pairs)
    )
    # Lengths are in pixels of the prediction, which may be coarser than the image.
    unit = pixel / float(facts.tags.get("cell", pixel))
    looks = tuple(Look(1 << place, view * unit, side * unit) for place, (view, side) in enumerate(pairs))
    return Layer(
        "windows", "Windows", draw.passes(facts.path, len(pairs)), facts.size, pixel, classes=legend, looks=looks
    )


def _looks(facts: RasterFacts) -> list[tuple[int, int]]:
    """Field of view and used side of each band, pixels of the prediction."""
    try:
        pairs = [(int(view), int(side)) for view, side in json.loads(facts.tags["looks"])]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{facts.path} does not say which looks its bands are; predict again") from None
    if not 1 <= len(pairs) <= min(_MOST, facts.bands) or min(min(pair) for pair in pairs) < 1:
        raise ConfigError(f"{facts.path} names {len(pairs)} looks in {facts.bands} bands; 1 to {_MOST} can be shown")
    return pairs


def _name(view: int, side: int) -> str:
    return f"{view} px wide" + (f", central {side} used" if side < view else "")


def _color(rank: int, count: int) -> str:
    """Evenly spaced in the colours of the foveation map, whose narrowest is its darkest."""
    colors = stops("viridis")
    return colors[round(rank / max(1, count - 1) * (len(colors) - 1))]


LARGE = 50e6  # pixels from which a raster without a pyramid is slow to look at
_TONE_SAMPLE = 1024
_DARK = 0.45  # an image of bytes is dark where nearly all are below this share of 255
_MIDDLE = 0.25


def image_layer(facts: RasterFacts, bands: Sequence[int] | None) -> Layer:
    """The layer of an image; its first three bands when none are given."""
    chosen = tuple(bands or range(1, min(3, facts.bands) + 1))
    if len(chosen) not in (1, 3) or not all(1 <= band <= facts.bands for band in chosen):
        if bands is not None:
            given = ", ".join(map(str, bands))
            raise ConfigError(
                f"--bands {given}: give one or three numbers from 1 to {facts.bands}, the bands of {facts.place}"
            )
        chosen = chosen[:1]
    tone = _tone(facts, chosen)
    picture = draw.picture(facts.path, chosen if len(chosen) == 3 else chosen * 3, tone.low, tone.high)
    return Layer("image", "Image", picture, facts.size, tone=tone, shown=True)


def _tone(facts: RasterFacts, bands: Sequence[int]) -> Tone:
    """Bytes as they are, unless all are dark; other values from the 2nd to the 98th percentile."""
    if facts.dtype == np.uint8 and facts.stored_levels == 0 and facts.size.pixels > LARGE:
        return Tone()  # it would be decoded once more
    values = _sampled(facts, bands)
    if facts.dtype == np.uint8:
        shares, tone = values / 255, Tone()
        if not shares.size or np.percentile(shares, 98) > _DARK:
            return tone
        black, white = np.percentile(shares, [2, 98])
        tone = tone._replace(black=float(black), white=float(max(white, black + 0.02)))
    else:
        low, high = np.percentile(values, [2, 98]) if values.size else (0, 1)
        tone = Tone(float(low), float(max(high, low + 1e-9)))
        shares = (values - tone.low) / (tone.high - tone.low)
    middle = (np.median(shares) - tone.black) / (tone.white - tone.black) if shares.size else _MIDDLE
    # The middle value becomes a dark grey, unless it is brighter; more than twice would show little but noise.
    gamma = np.log(np.clip(middle, 1e-3, _MIDDLE)) / np.log(_MIDDLE)
    return tone._replace(gamma=float(min(gamma, 2)))


def _sampled(facts: RasterFacts, bands: Sequence[int]) -> NDArray[np.float64]:
    """Values that mean something, of the whole image, or of its middle where the whole would take long to read."""
    window = Window.of(facts.size)
    if facts.stored_levels <= 1 and facts.size.pixels > LARGE:
        window = window.centred(_TONE_SAMPLE)
    size = Size(min(_TONE_SAMPLE, window.height), min(_TONE_SAMPLE, window.width))
    with open_image(facts.path) as reader:
        pixels, there = reader.read_known(window, size)
    wanted = [band - 1 for band in bands]
    known = pixels[wanted] if there is None else pixels[wanted][there[wanted]]
    values: NDArray[np.float64] = known.reshape(-1).astype(np.float64)
    return values[np.isfinite(values)]


def pixel_of(facts: RasterFacts, base: RasterFacts) -> float:
    """Side of a pixel of a raster in base pixels: as its tag says, else the one that makes it cover the base grid."""
    tagged = facts.tags.get("cell", "")
    for side in (int(tagged) if tagged.isdecimal() else 0, round(base.size.width / facts.size.width)):
        if side and facts.size == Size(ceil_div(base.size.height, side), ceil_div(base.size.width, side)):
            return side
    across, down = base.size.width / facts.size.width, base.size.height / facts.size.height
    if abs(across - down) > max(across / facts.size.width, down / facts.size.height):
        raise ConfigError(
            f"{facts.place} is {facts.size.text} pixels and {base.place} is {base.size.text}: they do not show the "
            "same place"
        )
    return across
