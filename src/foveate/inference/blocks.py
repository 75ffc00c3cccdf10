"""Blocks: the parts of the output grid that are worked on, and written, one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from foveate.geometry import Size, Window, ceil_div

_DEFAULT = 2048


def block_side(wanted: int, cell: int, root: int) -> int:
    """Side of the blocks: the largest multiple at most `wanted` of the cell and the widest support, at least one.

    A cell then lies in one block only. So does a widest support, which would be passed again for every other block that
    it meets; where a common multiple is much larger than wanted, only the cell is respected.

    Args:
        wanted: level-0 pixels; 0 where that is still "auto".
        cell: side of what must not lie in two blocks.
        root: side of the widest supports of the planner, 1 where there are none.
    """
    wanted = wanted or _DEFAULT
    both = math.lcm(cell, root)
    unit = both if both <= 2 * wanted else cell
    return max(1, wanted // unit) * unit


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Disjoint blocks that cover an image, numbered row by row.

    A block's result depends on the image and the plan alone, so blocks may be done in any order, again, or elsewhere.
    """

    image: Size
    side: int

    @property
    def columns(self) -> int:
        """Blocks in a row."""
        return ceil_div(self.image.width, self.side)

    def __len__(self) -> int:
        return ceil_div(self.image.height, self.side) * self.columns

    def __getitem__(self, number: int) -> Window:
        if not 0 <= number < len(self):
            raise IndexError(number)
        row, col = divmod(number, self.columns)
        top, left = row * self.side, col * self.side
        return Window(top, left, min(self.side, self.image.height - top), min(self.side, self.image.width - left))

    def __iter__(self) -> Iterator[Window]:
        return (self[number] for number in range(len(self)))

    def place_in_bands(self, number: int, width: int) -> tuple[int, int, int]:
        """What to sort numbers by, so that blocks are worked on in bands of so many columns, each row by row."""
        row, col = divmod(number, self.columns)
        return col // width, row, col
