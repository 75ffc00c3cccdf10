"""Layers of numbers: their ranges, units and colours."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

import numpy as np

from foveate.data.readers import open_image
from foveate.geometry import Size, Window
from foveate.viewer.colors import stops
from foveate.viewer.facts import RasterFacts, raster_facts
from foveate.viewer.inputs import Prediction
from foveate.viewer.rendering import Values
from foveate.viewer.scene import Kind, Layer, Scale

_SAMPLE = 512
_BYTE_OF_ONE = 254  # see foveate.inference.storing.layers


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
}


def value_layer(kind: str, facts: RasterFacts, pixel: float, summary: dict[str, Any]) -> Layer:
    """The layer of a raster of numbers.

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
    return Layer(
        cast("Kind", kind),
        look.title,
        Values(facts.path, low, high, gain, facts.offset, facts.unknown),
        facts.size,
        pixel,
        scale=Scale(low, high, look.unit, stops(look.colors)),
        opacity=0.7,
    )


def views_of(prediction: Prediction) -> tuple[int, ...]:
    """The fields of view a prediction could choose from, from its summary or its foveation map; empty if unknown."""
    fov = prediction.values.get("fov")
    return _views(raster_facts(fov) if fov else None, prediction.summary)


def _views(facts: RasterFacts | None, summary: dict[str, Any]) -> tuple[int, ...]:
    given = summary.get("fields_of_view")
    if given is None and facts is not None:
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
