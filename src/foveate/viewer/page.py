"""The page: one HTML file, with all that it knows of a scene as plain values (the manifest) inside; and its export.

An export is the same page with a tree of tiles, and no server. A page opened from a disk may show pictures but not read
their pixels, nor fetch files. Tiles of codes are therefore stored as small scripts that hand over their PNG, so that
the page can colour it and say what is under the pointer.
"""

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from foveate.data.readers import Georeference
from foveate.errors import FoveateError, OutputExistsError, OutputWriteError
from foveate.files import refuse_existing
from foveate.processes import in_order
from foveate.viewer.scene import Layer, Scene, TileGrid, TileIndex, TileService


def manifest(scene: Scene, tiles: str, *, scripts: bool = False) -> dict[str, Any]:
    """Describe a scene to the page.

    Args:
        scene: what is shown.
        tiles: address of the tiles, relative to the page, ending in a slash.
        scripts: whether tiles of codes are stored as scripts, see above.
    """
    place, pixel = _georeference(scene.georeference), scene.resolution
    return {
        "title": scene.title,
        "width": scene.size.width,
        "height": scene.size.height,
        "tile": scene.tile,
        "tiles": tiles,
        "scripts": scripts,
        # A degree is as long as its place says: one bar for all of a map would be wrong elsewhere on it.
        "resolution": None if pixel is None or (place and place["geographic"]) else (pixel.row, pixel.col),
        "georeference": place,
        "predictions": scene.predictions,
        "notices": scene.notices,
        "layers": [_layer(number, layer, scene.tile) for number, layer in enumerate(scene.layers)],
    }


def _layer(number: int, layer: Layer, tile: int) -> dict[str, Any]:
    same = ("kind", "title", "pixel", "prediction", "shown", "opacity", "option", "sets", "border")
    return {
        "index": number,
        **{name: getattr(layer, name) for name in same},
        "media": layer.rendering.media,
        "width": layer.size.width,
        "height": layer.size.height,
        "maxLevel": TileGrid(layer.size, tile).max_level,
        "classes": [entry._asdict() for entry in layer.classes],
        "looks": [look._asdict() for look in layer.looks],
        "tone": layer.tone and layer.tone._asdict(),
        "scale": layer.scale and layer.scale._asdict(),
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
    code = (STATIC / "js" / f"{name}.js").read_text(encoding="utf-8")
    exported = ", ".join(found[2] for found in _EXPORT.finditer(code))
    body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const \1 = modules.\2;", code))
    return f"modules.{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"


MARK = "foveate-view.json"
_AHEAD = 64  # tiles that are made before they are written


def export(
    scene: Scene,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Write a scene as a folder of static files, in memory bounded by a few tiles.

    Returns:
        The number of tiles.
    """
    grids = [TileGrid(layer.size, scene.tile) for layer in scene.layers]
    total = sum(map(len, grids))
    with _written_folder(folder, overwrite) as partial:
        _write_page(scene, partial)
        with TileService(scene) as service:
            made = in_order((service.submit(*place) for place in _places(grids)), _AHEAD)
            for done, ((layer, index), tile) in enumerate(zip(_places(grids), made, strict=True), start=1):
                _write_tile(partial / "tiles", layer, index, tile, scene.layers[layer])
                if progress is not None:
                    progress(done / total)
    return total


def _write_page(scene: Scene, folder: Path) -> None:
    tree, static = manifest(scene, "tiles/", scripts=True), folder / "static"
    (static / "vendor").mkdir(parents=True)
    (folder / "index.html").write_text(page(tree, bundled=True), encoding="utf-8")
    (folder / MARK).write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (static / "viewer.js").write_text(bundle(), encoding="utf-8")
    (static / "viewer.css").write_bytes((STATIC / "viewer.css").read_bytes())
    for file in (STATIC / "vendor").iterdir():
        (static / "vendor" / file.name).write_bytes(file.read_bytes())
    for number, layer in enumerate(scene.layers):
        (folder / "tiles").mkdir(exist_ok=True)
        if layer.rendering.media == "jpg":
            (folder / "tiles" / f"{number}.dzi").write_text(_dzi(layer, scene.tile), encoding="utf-8")


def _dzi(layer: Layer, tile: int) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" TileSize="{tile}">'
        f'<Size Width="{layer.size.width}" Height="{layer.size.height}"/></Image>\n'
    )


def _places(grids: Sequence[TileGrid]) -> Iterator[tuple[int, TileIndex]]:
    """The number of the layer and the tile, of all in order."""
    return ((number, index) for number, grid in enumerate(grids) for index in grid)


def _write_tile(tiles: Path, number: int, index: TileIndex, tile: bytes, layer: Layer) -> None:
    name = f"{number}_files/{index.level}/{index.col}_{index.row}"
    path = tiles / f"{name}.{'jpg' if layer.rendering.media == 'jpg' else 'js'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if layer.rendering.media == "png":
        tile = f'foveateTile("{name}","{base64.b64encode(tile).decode()}");'.encode()
    path.write_bytes(tile)


@contextmanager
def _written_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place on success, and is removed on failure."""
    refuse_existing(folder, overwrite)
    if folder.exists() and not (folder / MARK).is_file():
        raise OutputExistsError(f"{folder} is not an earlier export (it has no {MARK}); choose another folder")
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except FoveateError:
        raise  # says already what went wrong, for example an image that could not be read
    except OSError as error:
        raise OutputWriteError(f"could not write {folder}: {error}; nothing was left under that name") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
