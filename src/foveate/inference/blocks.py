"""Blocks: the parts of the output grid that are worked on, and written, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foveate.geometry import Size, Window, ceil_div


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
