"""Rasters of bytes as tiles: cut from blocks with their own overviews, and compressed once, by whoever made them."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np

from foveate.geometry import BoolArray, ByteArray, Size, Window, ceil_div, halvings
from foveate.tiff.raster import NODATA, TILE, RasterSpec

Mapped: TypeAlias = Callable[..., Iterator[Any]]
# Class ids come in runs: zlib's strategy for those makes them as small as its level 6, in a quarter of the time.
# Differences of bytes have none: level 3 takes half the time of level 6, and 8 % more bytes at most.
_RUNS, _DIFFERENCES = (1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE), (3,)


class Place(NamedTuple):
    """A tile: level 0 is the image, each level half of the one before."""

    level: int
    row: int
    col: int


class Piece(NamedTuple):
    """A part of a tile."""

    window: Window  # in pixels of its level
    data: bytes  # compressed: of a whole tile what stands in the file, of a part just its pixels
    whole: bool  # whether it is a whole tile


class TiledLayer(NamedTuple):
    """The pieces of a block, at as many levels of the pyramid as it makes alone."""

    levels: int
    pieces: dict[Place, Piece]


@dataclass(frozen=True)
class Tiling:
    """The tiles of a raster and of its overviews."""

    size: Size  # of the raster, pixels
    bands: int  # of a pixel, one byte each
    mode: bool  # overviews take the most frequent of four pixels, as class ids need it, or their mean

    @classmethod
    def of(cls, spec: RasterSpec) -> Self:
        """Of a raster of bytes."""
        return cls(spec.size, len(spec.bands), spec.overviews == "mode")

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """Of every level, until one tile holds all."""
        return halvings(self.size, TILE)

    def places(self, level: int) -> Iterator[Place]:
        """The tiles of a level, row by row."""
        return met(level, Window.of(self.sizes[level]))

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

    def cut(self, window: Window, values: ByteArray, levels: int, mapped: Mapped = map) -> TiledLayer:
        """The pieces of a block, (h, w) or (bands, h, w), at so many levels.

        The corners of its window are multiples of 2 ** (levels - 1). `mapped` does the work of `map`, with threads if
        it has them.
        """
        pixels = values.reshape(self.bands, *values.shape[-2:])
        found: dict[Place, tuple[Window, ByteArray]] = {}
        for level in range(levels):
            if level:
                pixels = halved(pixels, self.mode)
                window = Window(window.top // 2, window.left // 2, *pixels.shape[1:])
            for place in met(level, window):
                part = window.intersection(self.window(place))
                if part is not None:
                    found[place] = part, pixels[:, *part.within(window)]
        pieces = mapped(lambda item: self._piece(item[0], *item[1]), found.items())
        return TiledLayer(levels, dict(zip(found, pieces, strict=True)))

    def _piece(self, place: Place, part: Window, pixels: ByteArray) -> Piece:
        whole = part == self.window(place)
        return Piece(part, self.encode(pixels) if whole else self._compressed(pixels), whole)

    def _compressed(self, pixels: ByteArray) -> bytes:
        packer = zlib.compressobj(*(_RUNS if self.mode else _DIFFERENCES))
        return packer.compress(np.ascontiguousarray(pixels).data) + packer.flush()

    def encode(self, pixels: ByteArray) -> bytes:
        """A tile as it stands in the file, from its pixels (bands, h, w); what is missing to a whole tile is nodata."""
        if pixels.shape[1:] != (TILE, TILE):
            full = np.full((self.bands, TILE, TILE), NODATA, np.uint8)
            full[:, : pixels.shape[1], : pixels.shape[2]] = pixels
            pixels = full
        if not self.mode:
            # Differences of neighbours compress better than values, but not those of class ids.
            pixels = np.concatenate([pixels[..., :1], pixels[..., 1:] - pixels[..., :-1]], axis=-1)
        return self._compressed(pixels.transpose(1, 2, 0))

    def decode(self, data: bytes, window: Window) -> ByteArray:
        """The pixels (bands, h, w) of a whole tile."""
        pixels = np.frombuffer(zlib.decompress(data), np.uint8).reshape(TILE, TILE, self.bands).transpose(2, 0, 1)
        if not self.mode:
            pixels = np.cumsum(pixels, axis=-1, dtype=np.uint8)
        return pixels[:, : window.height, : window.width]


def halved(pixels: ByteArray, mode: bool) -> ByteArray:
    """Every 2 x 2 pixels (C, h, w) as one, (C, ceil(h / 2), ceil(w / 2)), without what is not known.

    Args:
        pixels: `NODATA` where not known. An odd last row or column counts twice.
        mode: the most frequent value, of equals that of the first pixel; or the mean, rounded.
    """
    height, width = pixels.shape[1:]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    # Two pixels of a row as one number: its low and its high byte are taken apart faster than every other byte.
    pairs = np.ascontiguousarray(pixels).view("<u2")
    four = [part.astype(np.uint8) for rows in (pairs[:, ::2], pairs[:, 1::2]) for part in (rows, rows >> 8)]
    return _most_frequent(four) if mode else _mean(four)


def _most_frequent(four: list[ByteArray]) -> ByteArray:
    a, b, c, d = four
    alone = (a != b) & (a != c) & (a != d)
    if not alone.any():
        result = a
    else:  # b or c where another agrees with it and none with a; a wherever it has company or all differ
        of_b = (b == c) | (b == d)
        result = _chosen(a, b, alone & of_b)
        result = _chosen(result, c, alone & ~of_b & (c == d))
    unknown = result == NODATA
    if unknown.any():
        for other in four:
            result = _chosen(result, other, unknown & (result == NODATA))
    return result


def _chosen(values: ByteArray, others: ByteArray, where: BoolArray) -> ByteArray:
    """The others where that is true; by bits, which is several times faster than `np.where`."""
    return values ^ ((values ^ others) & (where.view(np.uint8) * np.uint8(255)))


def _mean(four: list[ByteArray]) -> ByteArray:
    known = [part != NODATA for part in four]
    count = sum(part.astype(np.uint16) for part in known)
    total = sum(np.where(where, part, 0).astype(np.uint16) for part, where in zip(four, known, strict=True))
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, mean, NODATA).astype(np.uint8)


def met(level: int, window: Window) -> Iterator[Place]:
    """The tiles that a window of a level meets, row by row."""
    for row in range(window.top // TILE, ceil_div(window.bottom, TILE)):
        for col in range(window.left // TILE, ceil_div(window.right, TILE)):
            yield Place(level, row, col)
