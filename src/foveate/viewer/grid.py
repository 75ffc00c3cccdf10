"""The tiles of a raster: levels that halve, as in Deep Zoom images, each cut into squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from foveate.geometry import Size, Window, ceil_div


class TileIndex(NamedTuple):
    """Which tile: its level (0 is one pixel, the highest is the raster itself), column and row."""

    level: int
    col: int
    row: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """All tiles of a raster.

    Attributes:
        size: of the raster.
        side: of a tile in pixels; the last of a row or column may be smaller.
    """

    size: Size
    side: int = 256

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
        sizes = map(self.level_size, range(self.max_level + 1))
        return sum(ceil_div(size.height, self.side) * ceil_div(size.width, self.side) for size in sizes)
