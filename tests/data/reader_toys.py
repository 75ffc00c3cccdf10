"""Images in the formats that GDAL does not write, and a server that counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from data_toys import write
from rasterio.enums import Resampling

from foveate.data.readers.gdal import open_dataset

APERIO = "Aperio Image Library v11.2.1\r\n{width}x{height} (64x64) RGB|AppMag = 20|MPP = 0.25"


def write_npy(path: Path, pixels: np.ndarray, *, last: bool = False) -> Path:
    """(bands, H, W) as a .npy file; `last` stores the bands last."""
    np.save(path, pixels.transpose(1, 2, 0) if last else pixels)
    return path


def write_zarr(path: Path, pixels: np.ndarray, zarr_format: int = 3, **options) -> Path:
    """(bands, H, W) as a plain array in chunks of 64 pixels."""
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        chunks=(1, 64, 64)[-pixels.ndim :],
        dtype=pixels.dtype,
        zarr_format=zarr_format,
        **options,
    )
    array[:] = pixels
    return path


def write_ome_zarr(path: Path, levels, *, version: str = "0.4", scale: float = 0.25, unit: str = "micrometer") -> None:
    """Levels (bands, H, W), each half of the one before, as tczyx."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for i, level in enumerate(levels):
        array = group.create_array(
            str(i), shape=(1, level.shape[0], 1, *level.shape[1:]), chunks=(1, 1, 1, 64, 64), dtype=level.dtype
        )
        array[:] = level[None, :, None]
        own = [1.0, 1.0, 1.0, scale * 2**i, scale * 2**i]
        datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": own}]})
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    images = [{"version": version, "axes": axes, "datasets": datasets}]
    group.attrs.update(
        {"multiscales": images} if version == "0.4" else {"ome": {"version": version, "multiscales": images}}
    )


def write_svs(path: Path, pixels: np.ndarray, overviews=()) -> Path:
    """(3, H, W) uint8 as a TIFF that OpenSlide takes for one of Aperio's."""
    pytest.importorskip("openslide")
    plain = write(
        path.with_suffix(".tif"),
        pixels,
        driver="GTiff",
        tiled=True,
        blockxsize=64,
        blockysize=64,
        photometric="RGB",
        interleave="pixel",
        compress="lzw",
    )
    with open_dataset(plain, "r+") as file:
        text = APERIO.format(width=pixels.shape[2], height=pixels.shape[1])
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text)
    if overviews:
        with open_dataset(plain, "r+") as file:
            file.build_overviews(list(overviews), Resampling.average)
    return plain.rename(path)


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback, whole files and ranges, and remembers what it was asked for.

    Attributes:
        sent: bytes of all answers.
        asked: path, and range if any, of every request.
        broken: paths that are answered with an error.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.sent, self.asked, self.broken = folder, 0, [], set()

    @property
    def url(self) -> str:
        """Of the folder, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name, part = self.path.partition("?")[0], self.headers.get("Range")
        self.server.asked.append((name, part))
        path = self.server.folder / name.lstrip("/")
        if name in self.server.broken or not path.is_file():
            self._send(500 if name in self.server.broken else 404, b"")
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", part or "")
        if not found:
            self._send(200, data)
            return
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        self._send(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

    def _send(self, code: int, body: bytes, place: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if place:
            self.send_header("Content-Range", place)
        self.end_headers()
        if self.command == "GET":
            self.server.sent += len(body)
            self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A running server of a folder."""
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
