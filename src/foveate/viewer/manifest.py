"""The manifest: all that the page knows about a scene, as plain values for JSON."""

from __future__ import annotations

from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from foveate.data.readers import Georeference
from foveate.viewer.grid import TileGrid
from foveate.viewer.scene import Layer, Scene


def manifest(scene: Scene, tiles: str, *, scripts: bool = False) -> dict[str, Any]:
    """Describe a scene to the page.

    Args:
        scene: what is shown.
        tiles: address of the tiles, relative to the page, ending in a slash.
        scripts: whether tiles of codes are stored as scripts, see `foveate.viewer.export`.
    """
    place = _georeference(scene.georeference)
    return {
        "title": scene.title,
        "width": scene.size.width,
        "height": scene.size.height,
        "tile": scene.tile,
        "tiles": tiles,
        "scripts": scripts,
        # A degree is as long as its place says: one bar for all of a map would be wrong elsewhere on it.
        "resolution": None if place is not None and place["geographic"] else scene.resolution,
        "georeference": place,
        "predictions": scene.predictions,
        "notices": scene.notices,
        "layers": [_layer(number, layer, scene.tile) for number, layer in enumerate(scene.layers)],
    }


def _layer(number: int, layer: Layer, tile: int) -> dict[str, Any]:
    scale = layer.scale
    return {
        "index": number,
        "kind": layer.kind,
        "title": layer.title,
        "media": layer.rendering.media,
        "width": layer.size.width,
        "height": layer.size.height,
        "maxLevel": TileGrid(layer.size, tile).max_level,
        "pixel": layer.pixel,
        "prediction": layer.prediction,
        "shown": layer.shown,
        "opacity": layer.opacity,
        "classes": [
            {"code": item.code, "name": item.name, "color": item.color, "share": item.share} for item in layer.classes
        ],
        "option": layer.option,
        "looks": [look._asdict() for look in layer.looks],
        "scale": scale and {"low": scale.low, "high": scale.high, "unit": scale.unit, "stops": scale.stops},
    }


def _georeference(place: Georeference | None) -> dict[str, Any] | None:
    if place is None:
        return None
    name, geographic = "", False
    try:
        crs = CRS.from_wkt(place.crs) if place.crs else None
    except CRSError:
        crs = None
    if crs is not None:
        name, geographic = crs.to_string() if crs.to_epsg() else place.crs.split('"')[1], crs.is_geographic
    return {"transform": place.transform, "name": name, "geographic": geographic}
