"""Put a cloud-optimised GeoTIFF together from tiles that were compressed before, wherever that was done.

GDAL writes such a file from pixels only, and compresses them twice. Here a tile is compressed once, by whoever made it;
this module makes overviews and lays the tiles out. What the file says about itself (place, colours,
names) is GDAL's own: it is taken from a small file that GDAL writes.

Source: GDAL's description of the layout, https://gdal.org/en/stable/drivers/raster/cog.html
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np

from foveate.devices import available_cores
from foveate.errors import OutputWriteError
from foveate.geometry import ByteArray, Size, Window, ceil_div
from foveate.processes import in_order
from foveate.tiff.raster import DRAFT, NODATA, TILE, RasterSpec, drafted, write_template, writing
from foveate.tiff.tiles import Piece, Place, TiledLayer, Tiling, halved, met

_CLASSIC = 2**32  # bytes that a TIFF with places of four bytes may have
_AHEAD = 16  # tiles that are compressed while one is written
_GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_SUBFILE, _WIDTH, _HEIGHT, _OFFSETS, _COUNTS = 254, 256, 257, 324, 325
# What only the full image has: place on the ground, metadata.
_FULL_ONLY = {33550, 33922, 34264, 34735, 34736, 34737, 42112}
_LONG, _LONG8 = 4, 16  # TIFF's names of unsigned integers of 4 and 8 bytes


# The pieces of a tile, of which a whole one comes alone; none where nothing was written.
PiecesAt: TypeAlias = Callable[[Place], list[Piece]]


class TiledWriter:
    """One raster of bytes in the making; made by `open_tiled`."""

    def __init__(self, tiling: Tiling, path: Path, spool: IO[bytes]) -> None:
        self._tiling, self._path, self._spool = tiling, path, spool
        self._found: dict[Place, list[tuple[Window, int, int, bool]]] = {}
        self.levels: int | None = None

    def write(self, window: Window, values: ByteArray | TiledLayer) -> None:
        """Write (h, w), or (bands, h, w) where there are several, or what `Tiling.cut` made of them, into a window.

        The same blocks in all calls, in any order.

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
        return [
            Piece(window, os.pread(self._spool.fileno(), length, start), whole)
            for window, start, length, whole in self._found.get(place, ())
        ]


@contextmanager
def open_tiled(path: Path, spec: RasterSpec) -> Iterator[TiledWriter]:
    """Open a raster of bytes for writing; it becomes a cloud-optimised GeoTIFF when the block ends well.

    What is written is kept compressed, in a file beside, until all is there; memory does not grow with the pixels.

    Args:
        path: final name.
        spec: what the raster is; its values are uint8, and `NODATA` is what is not known.

    Raises:
        OutputExistsError: when the file exists.
        OutputWriteError: when writing fails; nothing is left under the final name then.
    """
    with drafted(path) as folder, (folder / "pieces").open("w+b", buffering=0) as spool:
        writer = TiledWriter(Tiling.of(spec), path, spool)
        yield writer
        with writing(path), ThreadPoolExecutor(available_cores(), thread_name_prefix="tiles") as pool:
            write_cog(folder / DRAFT, spec, writer.pieces_at, levels=writer.levels or 1, pool=pool)


def write_cog(path: Path, spec: RasterSpec, pieces_at: PiecesAt, *, levels: int, pool: Executor) -> None:
    """Write a raster of bytes to a new file from the pieces of its tiles, of which there are `levels` levels.

    Further overviews are made of the coarsest given, beside the file for a while. The pool runs what compresses. The
    caller removes what is there after an error.
    """
    tiling = Tiling.of(spec)
    coarse = path.with_name(f"{path.name}.overviews")
    layout = _Layout(tiling, write_template(spec, path.with_name(f"{path.name}.head.tif")))
    try:
        with coarse.open("w+b", buffering=0) as overviews, path.open("wb") as file:
            tiles = _Tiles(tiling, pieces_at, overviews, pool)
            for level, record in enumerate(tiles.made, start=1):
                for data in tiles.of(level, tiles.finished if level < levels else tiles.coarser):
                    record.append(data)
            file.seek(layout.data_start)
            copied = [_Level(file) for _ in tiling.sizes]
            for record, source_level in zip(reversed(copied[1:]), reversed(tiles.made), strict=True):
                for data in source_level:
                    record.append_block(data)
            for data in tiles.of(0, tiles.finished):
                copied[0].append_block(data)
            file.seek(0)
            file.write(layout.header(copied))
    finally:
        coarse.unlink(missing_ok=True)


class _Tiles:
    """Makes the tiles of a raster: of their pieces, or of the finer tiles, which are kept in a file."""

    def __init__(self, tiling: Tiling, pieces_at: PiecesAt, overviews: IO[bytes], pool: Executor) -> None:
        self._tiling, self._pieces_at, self._pool = tiling, pieces_at, pool
        self.made = [_Level(overviews) for _ in tiling.sizes[1:]]

    def of(self, level: int, make: Callable[[Place], bytes]) -> Iterator[bytes]:
        """Those of a level, row by row."""
        return in_order((self._pool.submit(make, place) for place in self._tiling.places(level)), _AHEAD)

    def finished(self, place: Place) -> bytes:
        """A tile of its pieces."""
        pieces = self._pieces_at(place)
        return pieces[0].data if pieces and pieces[0].whole else self._tiling.encode(self._joined(place, pieces))

    def coarser(self, place: Place) -> bytes:
        """A tile of the four finer ones under it."""
        tiling, finer_size = self._tiling, self._tiling.sizes[place.level - 1]
        top, left = 2 * place.row * TILE, 2 * place.col * TILE
        under = Window(top, left, min(2 * TILE, finer_size.height - top), min(2 * TILE, finer_size.width - left))
        pixels = np.empty((tiling.bands, under.height, under.width), np.uint8)
        for finer in met(place.level - 1, under):
            pixels[:, *tiling.window(finer).within(under)] = self._pixels(finer)
        return tiling.encode(halved(pixels, tiling.mode))

    def _pixels(self, place: Place) -> ByteArray:
        if place.level == 0:
            return self._joined(place, self._pieces_at(place))
        across = ceil_div(self._tiling.sizes[place.level].width, TILE)
        data = self.made[place.level - 1].get(place.row * across + place.col)
        return self._tiling.decode(data, self._tiling.window(place))

    def _joined(self, place: Place, pieces: Iterable[Piece]) -> ByteArray:
        tiling, window = self._tiling, self._tiling.window(place)
        pixels = np.full((tiling.bands, window.height, window.width), NODATA, np.uint8)
        for part, data, whole in pieces:
            if whole:
                return tiling.decode(data, window)
            own = np.frombuffer(zlib.decompress(data), np.uint8).reshape(tiling.bands, part.height, part.width)
            pixels[:, *part.within(window)] = own
        return pixels


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
    """The tags of the first directory of a TIFF."""
    import tifffile  # noqa: PLC0415 - takes a while, and reading needs it rarely

    with tifffile.TiffFile(BytesIO(tiff)) as file:
        tags = {tag.code: (tag, tiff[tag.valueoffset :][: tag.valuebytecount]) for tag in file.pages.first.tags}
    return {code: _Entry(int(tag.dtype), tag.count, data) for code, (tag, data) in tags.items()}


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
