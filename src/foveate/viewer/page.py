"""The page: one HTML file, with all that it knows of a scene as plain values (the manifest) inside."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from foveate.data.readers import Georeference
from foveate.viewer.scene import Layer, Scene
from foveate.viewer.tiles import TileGrid


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
        "tone": layer.tone and layer.tone._asdict(),
        "border": layer.border,
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


STATIC = resources.files("foveate.viewer") / "static"
# In the order in which they need each other.
MODULES = (
    "format", "dom", "manifest", "colours", "state", "tiles", "painters", "probe", "link", "scalebar", "windows",
    "pane", "panes", "tone", "panel", "readout", "picture", "keys", "main",
)  # fmt: skip
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)


def page(tree: dict[str, Any], *, bundled: bool = False) -> str:
    """The HTML, with the manifest inside, so that it needs no request of its own.

    Args:
        tree: from `manifest`.
        bundled: refer to `viewer.js`, as written by `bundle`, which also runs where modules are not loaded: a browser
            refuses them for pages opened from a disk.
    """
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    script = '<script defer src="static/viewer.js">' if bundled else '<script type="module" src="static/js/main.js">'
    # Inside a script element only "<" could end it or open a comment.
    data = json.dumps(tree, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return html.replace("<!--MANIFEST-->", data).replace("<!--MAIN-->", f"{script}</script>")


def bundle() -> str:
    """All modules as one classic script: each a function that returns what it exports."""
    return '"use strict";\n(() => {\nconst modules = {};\n' + "\n".join(map(_wrapped, MODULES)) + "\n})();\n"


def _wrapped(name: str) -> str:
    code = module_source(name)
    exported = ", ".join(found[2] for found in _EXPORT.finditer(code))
    body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const \1 = modules.\2;", code))
    return f"modules.{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"


def module_source(name: str) -> str:
    """The text of a module."""
    return (STATIC / "js" / f"{name}.js").read_text(encoding="utf-8")
