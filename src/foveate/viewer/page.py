"""The page: one HTML file, with all that it knows of a scene as plain values (the manifest) inside; tiles; the export.

An export is the same page with a tree of tiles, and no server. A page opened from a disk may show pictures but not read
their pixels, nor fetch files. Tiles of codes are therefore stored as small scripts that hand over their PNG, so that
the page can colour it and say what is under the pointer.
"""

import base64
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import rasterio

from foveate.data import Georeference, ImageReader, ReaderCache, open_image
from foveate.data.pyramids import with_overviews
from foveate.errors import FoveateError, OutputExistsError, OutputWriteError
from foveate.files import Closing, refuse_existing
from foveate.geometry import Size, Window, ceil_div
from foveate.processes import in_order
from foveate.viewer.inputs import raster_facts
from foveate.viewer.rendering import Rendering, encoded
from foveate.viewer.scene import Layer, Scene


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
        "tone": layer.tone and {**layer.tone._asdict(), "contrasts": [one._asdict() for one in layer.tone.contrasts]},
        "scale": layer.scale and layer.scale._asdict(),
    }


def _georeference(place: Georeference | None) -> dict[str, Any] | None:
    if place is None:
        return None
    name, geographic = "", False
    try:
        crs = rasterio.CRS.from_wkt(place.crs) if place.crs else None
    except rasterio.errors.CRSError:
        crs = None
    if crs is not None:
        name, geographic = crs.to_string() if crs.to_epsg() else place.crs.split('"')[1], crs.is_geographic
    return {"transform": place.transform, "name": name, "geographic": geographic}


STATIC = resources.files("foveate.viewer") / "static"
# In the order in which they need each other.
MODULES = (
    "manifest", "format", "dom", "colours", "state", "tiles", "painters", "link", "windows", "pane", "panes", "tone",
    "panel", "readout", "picture", "keys", "main",
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


class TileIndex(NamedTuple):
    """Which tile: its level (0 is one pixel, the highest is the raster itself), column and row."""

    level: int
    col: int
    row: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """All tiles of a raster."""

    size: Size  # of the raster
    side: int = 256  # of a tile in pixels; the last of a row or column may be smaller

    @property
    def max_level(self) -> int:
        """The level at full resolution."""
        return (max(self.size.height, self.size.width) - 1).bit_length()

    def level_size(self, level: int) -> Size:
        """Size of a level, rounded up to whole pixels."""
        step = 1 << (self.max_level - level)
        return Size(ceil_div(self.size.height, step), ceil_div(self.size.width, step))

    def place(self, index: TileIndex) -> tuple[Window, Size]:
        """What a tile shows: its window in pixels of the raster, and its own size.

        The window may reach over the lower and right border by less than a pixel of the level, so that the pixels of
        all tiles of a level have one size.

        Raises:
            IndexError: when there is no such tile.
        """
        if not 0 <= index.level <= self.max_level or min(index.col, index.row) < 0:
            raise IndexError(index)
        size, step = self.level_size(index.level), 1 << (self.max_level - index.level)
        top, left = index.row * self.side, index.col * self.side
        if top >= size.height or left >= size.width:
            raise IndexError(index)
        shown = Size(min(self.side, size.height - top), min(self.side, size.width - left))
        return Window(top * step, left * step, shown.height * step, shown.width * step), shown

    def __iter__(self) -> Iterator[TileIndex]:
        for level in range(self.max_level + 1):
            size = self.level_size(level)
            for row in range(ceil_div(size.height, self.side)):
                for col in range(ceil_div(size.width, self.side)):
                    yield TileIndex(level, col, row)

    def __len__(self) -> int:
        return sum(1 for _ in self)


MAX_OPEN = 16  # files a thread keeps open
_DECODED_BYTES = 2 << 30
_MOST_THREADS = 8


class TileService(Closing):
    """Makes tiles, each as the bytes of a file; close it when done.

    Files that can only be decoded whole (PNG, JPEG) are read by one thread, so that they are decoded once.
    """

    def __init__(self, scene: Scene, *, threads: int | None = None) -> None:
        self.scene = scene
        self.threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._own, self._caches, self._ended = threading.local(), list[ReaderCache](), threading.Event()
        self._many = ThreadPoolExecutor(self.threads, thread_name_prefix="tiles")
        self._one = ThreadPoolExecutor(1, thread_name_prefix="tiles-of-decoded")
        paths = {path for layer in scene.layers for path in layer.rendering.paths}
        self._decoded = {path for path in paths if raster_facts(path).stored_levels == 0}

    def submit(self, layer: int, index: TileIndex) -> Future[bytes]:
        """Make a tile in a thread.

        Returns:
            Its JPEG or PNG bytes, or the `ImageReadError` of a damaged file.
        """
        if not 0 <= layer < len(self.scene.layers):
            raise IndexError(layer)
        chosen = self.scene.layers[layer]
        place = TileGrid(chosen.size, self.scene.tile).place(index)
        lane = self._one if self._decoded.intersection(chosen.rendering.paths) else self._many
        return lane.submit(self._make, chosen.rendering, *place)

    def _make(self, rendering: Rendering, window: Window, size: Size) -> bytes:
        return encoded(rendering.draw(self._reader, window, size), rendering)

    def close(self) -> None:
        """Stop the threads and close all files; may be called twice."""
        self._ended.set()
        for pool in (self._many, self._one):
            pool.shutdown(cancel_futures=True)
        while self._caches:
            self._caches.pop().close()

    def _reader(self, path: Path) -> ImageReader:
        """An open reader of this thread: a reader belongs to one."""
        if not hasattr(self._own, "cache"):
            self._own.cache = ReaderCache(
                _DECODED_BYTES, lambda path: with_overviews(open_image(path), self._ended.is_set), max_open=MAX_OPEN
            )
            self._caches.append(self._own.cache)
        reader: ImageReader = self._own.cache.get(path)
        return reader


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
