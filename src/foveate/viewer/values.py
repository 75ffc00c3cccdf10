"""Layers of numbers: their ranges, units and colours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from foveate.data.readers import open_image
from foveate.geometry import Size, Window
from foveate.viewer.colors import stops
from foveate.viewer.facts import RasterFacts
from foveate.viewer.rendering import Values
from foveate.viewer.scene import Kind, Layer, Scale

_SAMPLE = 512
_BYTE_OF_ONE = 254  # see foveate.inference.layers


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
