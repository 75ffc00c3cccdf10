"""GeoJSON, feature by feature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from foveate.inference.polygons.class_map import ClassMap
from foveate.inference.polygons.place import AreaUnit, Place
from foveate.inference.polygons.rings import Polygon
from foveate.types import FloatArray, IntArray


def header(crs: str | None) -> str:
    """The start of the file, up to the first feature."""
    member = json.dumps({"type": "name", "properties": {"name": crs}})
    return '{"type": "FeatureCollection",\n' + (f'"crs": {member},\n' if crs else "") + '"features": ['


FOOTER = "\n]}\n"
# As Python's numbers, points take ten times the memory of an array; a background may have millions.
_POINTS_AT_ONCE = 4096


def feature(polygon: Polygon, class_map: ClassMap, place: Place, unit: AreaUnit | None) -> Iterator[str]:
    """A polygon as a GeoJSON feature, in parts: an annotation for QuPath, with plain properties for everything else."""
    properties = json.dumps(_properties(polygon, class_map, unit))
    yield f'{{"type": "Feature", "properties": {properties}, "geometry": {{"type": "Polygon", "coordinates": ['
    for number, ring in enumerate((polygon.exterior, *polygon.holes)):
        yield "," if number else ""
        yield from _ring(ring, place)
    yield "]}}"


def _properties(polygon: Polygon, class_map: ClassMap, unit: AreaUnit | None) -> dict[str, Any]:
    name, value = class_map.name(polygon.value), polygon.value
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": name, "color": list(class_map.color(value))},
        "class": name,
        "class_id": value,
        "area_px": polygon.area,
    }
    if unit is not None:
        properties[unit.key] = float(f"{polygon.area * unit.per_pixel:.6g}")
    return properties


def _ring(ring: IntArray | FloatArray, place: Place) -> Iterator[str]:
    """A closed ring, the outer one counterclockwise as RFC 7946 asks for."""
    closed = np.concatenate([ring, ring[:1]])
    closed = closed[::-1] if place.flipped else closed
    for start in range(0, len(closed), _POINTS_AT_ONCE):
        points = place.to(closed[start : start + _POINTS_AT_ONCE]).tolist()
        yield ("," if start else "[") + json.dumps(points, separators=(",", ":"))[1:-1]
    yield "]"
