"""Layers of numbers, with their ranges, units and colours, and of the windows that passed through the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from foveate.data.readers import open_image
from foveate.errors import ConfigError
from foveate.geometry import Size, Window
from foveate.viewer.facts import RasterFacts
from foveate.viewer.legend import stops
from foveate.viewer.rendering import Passes, Values
from foveate.viewer.scene import ClassEntry, Kind, Layer, Look, Scale

_SAMPLE = 512
_BYTE_OF_ONE = 254  # see foveate.inference.block


class _Look(NamedTuple):
    title: str
    colors: str
    unit: str
    span: tuple[float, float] | None


_LOOKS = {
    "fov": _Look("Field of view", "viridis", "px", None),
    "confidence": _Look("Confidence", "cividis", "", (0, 1)),
    "entropy": _Look("Entropy", "magma", "", (0, 1)),
    "loss": _Look("Loss", "magma", "", None),
    "iou": _Look("IoU", "cividis", "", (0, 1)),
    "probabilities": _Look("Probability", "cividis", "", (0, 1)),
}


def value_layers(kind: str, facts: RasterFacts, pixel: float, summary: dict[str, Any]) -> Iterator[Layer]:
    """The layer of a raster of numbers; of probabilities one for each class.

    Args:
        kind: one of `VALUE_KINDS`.
        facts: of the raster.
        pixel: side of its pixels in base pixels.
        summary: of the prediction.
    """
    look = _LOOKS[kind]
    low, high = look.span or _span(facts, _views(facts, summary) if kind == "fov" else ())
    gain = facts.gain
    if facts.dtype == np.uint8 and gain == 1 and look.span:
        gain = 1 / _BYTE_OF_ONE
    for band in range(1, facts.bands + 1 if kind == "probabilities" else 2):
        yield Layer(
            cast("Kind", kind),
            look.title,
            Values(facts.path, low, high, gain, facts.offset, facts.unknown, band),
            facts.size,
            pixel,
            scale=Scale(low, high, look.unit, stops(look.colors)),
            option=facts.band_name(band) if kind == "probabilities" else "",
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
    """The layer of a map of passes, see `foveate.looks.passes`.

    Args:
        facts: of the map.
        pixel: side of its pixels in base pixels.

    Raises:
        ConfigError: when the map does not say what its bands are, or has more than can be told apart.
    """
    pairs = _looks(facts)
    views = sorted({view for view, _ in pairs})
    legend = tuple(
        ClassEntry(1 << place, _name(view, side), _color(views.index(view), len(views)))
        for place, (view, side) in enumerate(pairs)
    )
    # Lengths are in pixels of the prediction, which may be coarser than the image.
    unit = pixel / float(facts.tags.get("cell", pixel))
    looks = tuple(Look(1 << place, view * unit, side * unit) for place, (view, side) in enumerate(pairs))
    return Layer("windows", "Windows", Passes(facts.path, len(pairs)), facts.size, pixel, classes=legend, looks=looks)


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
