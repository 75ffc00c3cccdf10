"""Put a cloud-optimised GeoTIFF together from tiles that were compressed before, wherever that was done.

GDAL writes such a file from pixels only, and compresses them twice. Here a tile is compressed once, by whoever made it;
this module makes overviews and lays the tiles out. What the file says about itself (place, colours,
names) is GDAL's own: it is taken from a small file that GDAL writes.

Source: GDAL's description of the layout, https://gdal.org/en/stable/drivers/raster/cog.html
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foveate.devices import available_cores
from foveate.errors import OutputWriteError
from foveate.files import written
from foveate.geometry import Size, Window, ceil_div
from foveate.writers.tiff import NODATA, TILE, RasterSpec, write_template

Bytes: TypeAlias = NDArray[np.uint8]
Mapped: TypeAlias = Callable[..., Iterator[Any]]

_CLASSIC = 2**32  # bytes that a TIFF with places of four bytes may have
# Class ids come in runs: zlib's strategy for those makes them as small as its level 6, in a quarter of the time.
# Differences of bytes have none: level 3 takes half the time of level 6, and 8 % more bytes at most.
_RUNS, _DIFFERENCES = (1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE), (3,)
_AHEAD = 16  # tiles that are compressed while one is written
_GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_SUBFILE, _WIDTH, _HEIGHT, _OFFSETS, _COUNTS = 254, 256, 257, 324, 325
# What only the full image has: place on the ground, metadata.
_FULL_ONLY = {33550, 33922, 34264, 34735, 34736, 34737, 42112}
_LONG, _LONG8 = 4, 16  # TIFF's names of unsigned integers of 4 and 8 bytes
_WIDTHS = {1: 1, 2: 1, 3: 2, _LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, _LONG8: 8, 17: 8, 18: 8}


class Place(NamedTuple):
    """A tile: level 0 is the image, each level half of the one before."""

    level: int
    row: int
    col: int


class Piece(NamedTuple):
    """A part of a tile.

    Attributes:
        window: in pixels of its level.
        data: compressed: of a whole tile what stands in the file, of a part just its pixels.
        whole: whether it is a whole tile.
    """

    window: Window
    data: bytes
    whole: bool


class TiledLayer(NamedTuple):
    """The pieces of a block, at as many levels of the pyramid as it makes alone."""

    levels: int
    pieces: dict[Place, Piece]


# The pieces of a tile, of which a whole one comes alone; none where nothing was written.
PiecesAt: TypeAlias = Callable[[Place], list[Piece]]


@dataclass(frozen=True)
class Tiling:
    """The tiles of a raster and of its overviews.

    Attributes:
        size: of the raster, pixels.
        bands: of a pixel, one byte each.
        mode: overviews take the most frequent of four pixels, as class ids need it, or their mean.
    """

    size: Size
    bands: int
    mode: bool

    @classmethod
    def of(cls, spec: RasterSpec) -> Tiling:
        """Of a raster of bytes."""
        return cls(spec.size, len(spec.bands), spec.overviews == "mode")

    @cached_property
    def sizes(self) -> list[Size]:
        """Of every level, each half of the one before, rounded up, until one tile holds all."""
        sizes = [self.size]
        while max(sizes[-1].height, sizes[-1].width) > TILE:
            sizes.append(Size(ceil_div(sizes[-1].height, 2), ceil_div(sizes[-1].width, 2)))
        return sizes

    def places(self, level: int) -> Iterator[Place]:
        """The tiles of a level, row by row."""
        size = self.sizes[level]
        rows, cols = ceil_div(size.height, TILE), ceil_div(size.width, TILE)
        return (Place(level, row, col) for row in range(rows) for col in range(cols))

    def window(self, place: Place) -> Window:
        """The pixels of a tile inside its level."""
        size = self.sizes[place.level]
        top, left = place.row * TILE, place.col * TILE
        return Window(top, left, min(TILE, size.height - top), min(TILE, size.width - left))

    def levels_within(self, side: int) -> int:
        """Levels that blocks of this side, whose corners are multiples of it, make alone, until one tile holds them."""
        levels = 1
        while side % 2 == 0 and side > TILE and levels < len(self.sizes):
            side, levels = side // 2, levels + 1
        return levels

    def cut(self, window: Window, values: Bytes, levels: int, mapped: Mapped = map) -> TiledLayer:
        """The pieces of a block, (h, w) or (bands, h, w), at its own levels.

        Args:
            window: of the block; its corners are multiples of 2 ** (levels - 1).
            values: its pixels.
            levels: how many it makes.
            mapped: does the work of `map`, with threads if it has them.
        """
        pixels = values.reshape(self.bands, *values.shape[-2:])
        found: dict[Place, tuple[Window, Bytes]] = {}
        for level in range(levels):
            if level:
                pixels = halved(pixels, self.mode)
                window = Window(window.top // 2, window.left // 2, *pixels.shape[1:])
            for place in _met(level, window):
                part = window.intersection(self.window(place))
                if part is not None:
                    found[place] = part, pixels[:, *part.within(window)]
        pieces = mapped(lambda item: self._piece(item[0], *item[1]), found.items())
        return TiledLayer(levels, dict(zip(found, pieces, strict=True)))

    def _piece(self, place: Place, part: Window, pixels: Bytes) -> Piece:
        whole = part == self.window(place)
        return Piece(part, self.encode(pixels) if whole else self._compressed(pixels), whole)

    def _compressed(self, pixels: Bytes) -> bytes:
        packer = zlib.compressobj(*(_RUNS if self.mode else _DIFFERENCES))
        return packer.compress(np.ascontiguousarray(pixels).data) + packer.flush()

    def encode(self, pixels: Bytes) -> bytes:
        """A tile as it stands in the file, from its pixels (bands, h, w); what is missing to a whole tile is nodata."""
        if pixels.shape[1:] != (TILE, TILE):
            full = np.full((self.bands, TILE, TILE), NODATA, np.uint8)
            full[:, : pixels.shape[1], : pixels.shape[2]] = pixels
            pixels = full
        if not self.mode:
            # Differences of neighbours compress better than values, but not those of class ids.
            pixels = np.concatenate([pixels[..., :1], pixels[..., 1:] - pixels[..., :-1]], axis=-1)
        return self._compressed(pixels.transpose(1, 2, 0))

    def decode(self, data: bytes, window: Window) -> Bytes:
        """The pixels (bands, h, w) of a whole tile."""
        pixels = np.frombuffer(zlib.decompress(data), np.uint8).reshape(TILE, TILE, self.bands).transpose(2, 0, 1)
        if not self.mode:
            pixels = np.cumsum(pixels, axis=-1, dtype=np.uint8)
        return pixels[:, : window.height, : window.width]


class TiledWriter:
    """One raster of bytes in the making; made by `open_tiled`."""

    def __init__(self, tiling: Tiling, path: Path, spool: IO[bytes]) -> None:
        self._tiling, self._path, self._spool = tiling, path, spool
        self._found: dict[Place, list[tuple[Window, int, int, bool]]] = {}
        self.levels: int | None = None

    def write(self, window: Window, values: Bytes | TiledLayer) -> None:
        """Write (h, w), or (bands, h, w) where there are several, or what `Tiling.cut` made of them.

        Args:
            window: where, in pixels of the raster; the same blocks in all calls, in any order.
            values: pixels, or pieces.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        if not Window.of(self._tiling.size).contains(window):
            raise OutputWriteError(f"could not write {self._path}: {window} is not inside {self._tiling.size}")
        if not isinstance(values, TiledLayer):
            values = self._tiling.cut(window, values, self.levels or 1)
        self.levels = min(self.levels or values.levels, values.levels)
        with writing(self._path):
            for place, piece in values.pieces.items():
                if place.level < self.levels:
                    start = self._spool.seek(0, 2)
                    self._spool.write(piece.data)
                    self._found.setdefault(place, []).append((piece.window, start, len(piece.data), piece.whole))

    def pieces_at(self, place: Place) -> list[Piece]:
        """The pieces of a tile that were written; any thread may ask."""
        return [Piece(window, self._read(start, length), whole) for window, start, length, whole in self._of(place)]

    def _of(self, place: Place) -> list[tuple[Window, int, int, bool]]:
        return self._found.get(place, [])

    def _read(self, start: int, length: int) -> bytes:
        return os.pread(self._spool.fileno(), length, start)


@contextmanager
def open_tiled(path: Path, spec: RasterSpec, *, overwrite: bool = False) -> Iterator[TiledWriter]:
    """Open a raster of bytes for writing; it becomes a cloud-optimised GeoTIFF when the block ends well.

    What is written is kept compressed, in a file beside, until all is there; memory does not grow with the pixels.

    Args:
        path: final name.
        spec: what the raster is; its values are uint8, and `NODATA` is what is not known.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: when the file exists and `overwrite` is false.
        OutputWriteError: when writing fails; nothing is left under the final name then.
    """
    with (
        written(path, overwrite=overwrite) as partial,
        TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent, ignore_cleanup_errors=True) as folder,
        (Path(folder) / "pieces").open("w+b", buffering=0) as spool,
    ):
        writer = TiledWriter(Tiling.of(spec), path, spool)
        yield writer
        with writing(path), ThreadPoolExecutor(available_cores(), thread_name_prefix="tiles") as pool:
            write_cog(Path(folder) / "cog.tif", spec, writer.pieces_at, levels=writer.levels or 1, pool=pool)
            (Path(folder) / "cog.tif").replace(partial)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system says into an `OutputWriteError` that names the result."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise OutputWriteError(f"could not write {path}: {reason}; nothing was left under that name") from error


def halved(pixels: Bytes, mode: bool) -> Bytes:
    """Every 2 x 2 pixels (C, h, w) as one, (C, ceil(h / 2), ceil(w / 2)), without what is not known.

    Args:
        pixels: `NODATA` where not known. An odd last row or column counts twice.
        mode: the most frequent value, of equals that of the first pixel; or the mean, rounded.
    """
    height, width = pixels.shape[1:]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    four = [np.ascontiguousarray(pixels[:, i::2, j::2]) for i in (0, 1) for j in (0, 1)]
    return _most_frequent(four) if mode else _mean(four)


def _most_frequent(four: list[Bytes]) -> Bytes:
    a, b, c, d = four
    if np.array_equal(a, b) and np.array_equal(a, c) and np.array_equal(a, d):
        return a
    # b where two of the others agree with it and none with a; a wherever it has company or all differ.
    result = np.where((a == b) | (a == c) | (a == d), a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))
    unknown = result == NODATA
    if unknown.any():
        for other in four:
            result = np.where(unknown & (result == NODATA), other, result)
    return result


def _mean(four: list[Bytes]) -> Bytes:
    known = [part != NODATA for part in four]
    count = sum(part.astype(np.uint16) for part in known)
    total = sum(np.where(where, part, 0).astype(np.uint16) for part, where in zip(four, known, strict=True))
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, mean, NODATA).astype(np.uint8)


def write_cog(path: Path, spec: RasterSpec, pieces_at: PiecesAt, *, levels: int, pool: Executor) -> None:
    """Write a raster of bytes from the pieces of its tiles; further overviews are made of the coarsest given.

    Args:
        path: a new file, and beside it for a while one of its overviews.
        spec: what the raster is.
        pieces_at: gives the pieces of a tile at a level below `levels`.
        levels: how many levels there are pieces of.
        pool: runs what compresses.

    Raises:
        OSError: when writing fails; the caller removes what is there then.
    """
    tiling = Tiling.of(spec)
    coarse = path.with_name(f"{path.name}.overviews")
    layout = _Layout(tiling, write_template(spec, path.with_name(f"{path.name}.head.tif")))
    try:
        with coarse.open("w+b", buffering=0) as overviews, path.open("wb") as file:
            made = [_Level(overviews) for _ in tiling.sizes[1:]]
            for level, record in enumerate(made, start=1):
                source = _finished(tiling, pieces_at) if level < levels else _coarser(tiling, level, made, pieces_at)
                for data in _mapped(source, tiling.places(level), pool):
                    record.append(data)
            file.seek(layout.data_start)
            copied = [_Level(file) for _ in tiling.sizes]
            for record, source_level in zip(reversed(copied[1:]), reversed(made), strict=True):
                for data in source_level:
                    record.append_block(data)
            for data in _mapped(_finished(tiling, pieces_at), tiling.places(0), pool):
                copied[0].append_block(data)
            file.seek(0)
            file.write(layout.header(copied))
    finally:
        coarse.unlink(missing_ok=True)


def _finished(tiling: Tiling, pieces_at: PiecesAt) -> Callable[[Place], bytes]:
    """What makes a tile of its pieces."""

    def finished(place: Place) -> bytes:
        pieces = pieces_at(place)
        return pieces[0].data if pieces and pieces[0].whole else tiling.encode(_joined(tiling, place, pieces))

    return finished


def _joined(tiling: Tiling, place: Place, pieces: Iterable[Piece]) -> Bytes:
    window = tiling.window(place)
    pixels = np.full((tiling.bands, window.height, window.width), NODATA, np.uint8)
    for part, data, whole in pieces:
        if whole:
            return tiling.decode(data, window)
        own = np.frombuffer(zlib.decompress(data), np.uint8).reshape(tiling.bands, part.height, part.width)
        pixels[:, *part.within(window)] = own
    return pixels


def _coarser(tiling: Tiling, level: int, made: list[_Level], pieces_at: PiecesAt) -> Callable[[Place], bytes]:
    """What makes a tile of the four finer ones under it."""

    def coarser(place: Place) -> bytes:
        finer_size = tiling.sizes[level - 1]
        across = ceil_div(finer_size.width, TILE)
        top, left = 2 * place.row * TILE, 2 * place.col * TILE
        under = Window(top, left, min(2 * TILE, finer_size.height - top), min(2 * TILE, finer_size.width - left))
        pixels = np.empty((tiling.bands, under.height, under.width), np.uint8)
        for finer in _met(level - 1, under):
            part = tiling.window(finer)
            if level == 1:
                own = _joined(tiling, finer, pieces_at(finer))
            else:
                own = tiling.decode(made[level - 2].get(finer.row * across + finer.col), part)
            pixels[:, *part.within(under)] = own
        return tiling.encode(halved(pixels, tiling.mode))

    return coarser


def _met(level: int, window: Window) -> Iterator[Place]:
    """The tiles that a window of a level meets, row by row."""
    for row in range(window.top // TILE, ceil_div(window.bottom, TILE)):
        for col in range(window.left // TILE, ceil_div(window.right, TILE)):
            yield Place(level, row, col)


def _mapped(work: Callable[[Place], bytes], places: Iterable[Place], pool: Executor) -> Iterator[bytes]:
    """The work's results in order, some of them ahead."""
    waiting = []
    for place in places:
        waiting.append(pool.submit(work, place))
        if len(waiting) > _AHEAD:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


class _Level:
    """The tiles of one level in a file: where each begins, and how long it is. Any thread may ask for one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.offsets: list[int] = []
        self.counts: list[int] = []

    def append(self, data: bytes) -> None:
        start = self._file.seek(0, 2)
        self._file.write(data)
        self.offsets.append(start)  # known only once it is there
        self.counts.append(len(data))

    def append_block(self, data: bytes) -> None:
        """As a cloud-optimised file wants it: the length before, and the last four bytes again after it."""
        self._file.write(struct.pack("<I", len(data)))
        self.offsets.append(self._file.tell())
        self.counts.append(self._file.write(data))
        self._file.write(data[-4:])

    def get(self, number: int) -> bytes:
        return os.pread(self._file.fileno(), self.counts[number], self.offsets[number])

    def __iter__(self) -> Iterator[bytes]:
        return (self.get(number) for number in range(len(self.offsets)))


class _Entry(NamedTuple):
    """A tag of a TIFF: its type, how many values, and their bytes."""

    kind: int
    number: int
    data: bytes


class _Layout:
    """The directories of a file, which stand before its tiles."""

    def __init__(self, tiling: Tiling, template: bytes) -> None:
        self._tiling = tiling
        # Noise does not shrink, overviews add a third, and the rims of tiles are filled up.
        self._big = 1.5 * tiling.size.pixels * tiling.bands > _CLASSIC
        self._full = _entries(template)
        self.data_start = len(self.header([None] * len(tiling.sizes)))

    def header(self, levels: list[_Level] | list[None]) -> bytes:
        """Everything before the first tile; offsets are zeros where they are not known yet."""
        first = 16 if self._big else 8
        ghost = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_GHOST) + _GHOST
        start = first + len(ghost)
        start += start % 2
        magic = struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) if self._big else struct.pack("<2sHI", b"II", 42, start)
        header = bytearray((magic + ghost).ljust(start, b"\0"))
        for number, (size, level) in enumerate(zip(self._tiling.sizes, levels, strict=True)):
            entries = self._of_level(number, size, level)
            header += _directory(entries, len(header), last=number == len(levels) - 1, big=self._big)
        return bytes(header)

    def _of_level(self, number: int, size: Size, level: _Level | None) -> dict[int, _Entry]:
        tiles = len(list(self._tiling.places(number)))
        kept = {tag: e for tag, e in self._full.items() if number == 0 or tag not in _FULL_ONLY}
        kind, form = (_LONG8, "Q") if self._big else (_LONG, "I")
        offsets = level.offsets if level else [0] * tiles
        counts = level.counts if level else [0] * tiles
        changed = {
            _WIDTH: _Entry(_LONG, 1, struct.pack("<I", size.width)),
            _HEIGHT: _Entry(_LONG, 1, struct.pack("<I", size.height)),
            _OFFSETS: _Entry(kind, tiles, struct.pack(f"<{tiles}{form}", *offsets)),
            _COUNTS: _Entry(_LONG, tiles, struct.pack(f"<{tiles}I", *counts)),
        }
        if number:
            changed[_SUBFILE] = _Entry(_LONG, 1, struct.pack("<I", 1))
        return dict(sorted((kept | changed).items()))


def _entries(tiff: bytes) -> dict[int, _Entry]:
    """The tags of the first directory of a classic little-endian TIFF."""
    (start,) = struct.unpack_from("<I", tiff, 4)
    (number,) = struct.unpack_from("<H", tiff, start)
    found = {}
    for index in range(number):
        place = start + 2 + 12 * index
        tag, kind, count = struct.unpack_from("<HHI", tiff, place)
        length = count * _WIDTHS[kind]
        where = place + 8 if length <= 4 else struct.unpack_from("<I", tiff, place + 8)[0]
        found[tag] = _Entry(kind, count, tiff[where : where + length])
    return found


def _directory(entries: dict[int, _Entry], start: int, *, last: bool, big: bool) -> bytes:
    """A directory that begins at an offset of the file, the values that it points to, and where the next one begins."""
    number_form, entry_form, offset_form, inline = ("<Q", "<HHQ", "<Q", 8) if big else ("<H", "<HHI", "<I", 4)
    head = struct.calcsize(number_form) + len(entries) * (struct.calcsize(entry_form) + inline) + inline
    body, values = bytearray(struct.pack(number_form, len(entries))), bytearray()
    for tag, (kind, count, data) in entries.items():
        body += struct.pack(entry_form, tag, kind, count)
        if len(data) <= inline:
            body += data.ljust(inline, b"\0")
            continue
        body += struct.pack(offset_form, start + head + len(values))
        values += data + b"\0" * (-len(data) % 8)
    end = start + head + len(values)
    padding = b"\0" * (-end % 8)
    body += struct.pack(offset_form, 0 if last else end + len(padding))
    return bytes(body + values) + padding
