"""Write a scene as static files: the same page, a tree of tiles, no server.

A page opened from a disk may show pictures but not read their pixels, nor fetch files. Tiles of codes are therefore
stored as small scripts that hand over their PNG, so that the page can colour it and say what is under the pointer.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from foveate.errors import FoveateError, OutputExistsError, OutputWriteError
from foveate.files import refuse_existing
from foveate.viewer.page import STATIC, bundle, manifest, page
from foveate.viewer.scene import Layer, Scene
from foveate.viewer.tiles import TileGrid, TileIndex, TileService

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

    Args:
        scene: what to show.
        folder: to write; it appears under its name only when complete.
        overwrite: replace an earlier export.
        progress: told the share done, from 0 to 1.

    Returns:
        The number of tiles.

    Raises:
        OutputExistsError: when the folder exists and `overwrite` is false, or it is no export.
        OutputWriteError: when writing failed.
        ImageReadError: when a file is damaged.
    """
    total = sum(len(TileGrid(layer.size, scene.tile)) for layer in scene.layers)
    with _written_folder(folder, overwrite) as partial:
        _write_page(scene, partial)
        with TileService(scene, cache_bytes=0) as service:
            for done, (layer, index, tile) in enumerate(_made(service), start=1):
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


def _made(service: TileService) -> Iterator[tuple[int, TileIndex, bytes]]:
    """All tiles, in order, a few made ahead."""
    ahead: deque[tuple[int, TileIndex, Future[bytes]]] = deque()
    for number, layer in enumerate(service.scene.layers):
        for index in TileGrid(layer.size, service.scene.tile):
            ahead.append((number, index, service.submit(number, index)))
            if len(ahead) > _AHEAD:
                yield _finished(*ahead.popleft())
    while ahead:
        yield _finished(*ahead.popleft())


def _finished(layer: int, index: TileIndex, future: Future[bytes]) -> tuple[int, TileIndex, bytes]:
    return layer, index, future.result()


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
