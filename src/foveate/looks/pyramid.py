"""The pyramid cover: the widest windows tile the image, and inside each the narrower ones tile what it covers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.geometry import Size, Window
from foveate.patches.extraction import Windows


class PyramidLook(NamedTuple):
    """One way of looking.

    Attributes:
        view: field of view, level-0 pixels.
        keep: side of the central part of its windows that is used, as a share of the view, in (0, 1].
    """

    view: int
    keep: float


def smallest_first(looks: Iterable[tuple[int, float]]) -> tuple[PyramidLook, ...]:
    """Looks in the order of their kept parts, and of equal ones in that of their fields of view."""
    return tuple(sorted((PyramidLook(*look) for look in looks), key=lambda look: (look.view * look.keep, look.view)))


@dataclass(frozen=True, slots=True)
class PyramidGrid:
    """Where the passes of each look are used: disjoint supports, nested grids with a corner at the image's.

    Attributes:
        image: size of the image.
        sides: side of the supports of each look, ascending, each a multiple of the one before, level-0 pixels.
    """

    image: Size
    sides: tuple[int, ...]

    @classmethod
    def of(cls, image: Size, looks: Sequence[PyramidLook]) -> PyramidGrid:
        """The grids of some looks; a support is the largest multiple of the one before within its kept part.

        Args:
            image: size of the image.
            looks: smallest kept part first.
        """
        return cls(image, cls.sides_of(looks))

    @staticmethod
    def sides_of(looks: Sequence[PyramidLook]) -> tuple[int, ...]:
        """Side of the supports of each look, whatever the image."""
        sides = [max(1, round(looks[0].keep * looks[0].view))]
        for look in looks[1:]:
            # Rounded parts of doubling views may miss a multiple by a pixel.
            sides.append(max(1, int(look.keep * look.view + 1) // sides[-1]) * sides[-1])
        return tuple(sides)

    @property
    def roots(self) -> Windows:
        """All of the widest supports, row by row."""
        return self.roots_in(Window.of(self.image))

    def roots_in(self, block: Window) -> Windows:
        """The widest supports that meet a block inside the image."""
        side = self.sides[-1]
        tops = torch.arange(block.top // side * side, block.bottom, side)
        lefts = torch.arange(block.left // side * side, block.right, side)
        grid = torch.cartesian_prod(tops, lefts).reshape(-1, 2)
        return Windows(grid[:, 0], grid[:, 1], side)

    def parts(self, level: int) -> int:
        """Supports of a level in a row of one widest support."""
        return self.sides[-1] // self.sides[level]

    def inside(self, roots: Windows, level: int) -> Windows:
        """The supports of a level that tile each of N widest ones: (N * parts ** 2), root by root, row by row."""
        side, steps = self.sides[level], torch.arange(self.parts(level))
        shape = (len(roots.top), len(steps), len(steps))
        tops = (roots.top[:, None, None] + side * steps[:, None]).expand(shape)
        lefts = (roots.left[:, None, None] + side * steps).expand(shape)
        return Windows(tops.flatten(), lefts.flatten(), side)


def share_inside(windows: Windows, area: Window) -> Tensor:
    """Share of each window (N,) that lies inside an area, in [0, 1]."""
    rows = (windows.top + windows.side).clamp(max=area.bottom) - windows.top.clamp(min=area.top)
    cols = (windows.left + windows.side).clamp(max=area.right) - windows.left.clamp(min=area.left)
    return rows.clamp(min=0) * cols.clamp(min=0) / windows.side**2


def covered(supports: Windows, block: Window) -> Tensor:
    """Whether each pixel (h, w) of a block lies in one of N supports, whose corners are multiples of their side."""
    side = supports.side
    first_row, first_col = block.top // side, block.left // side
    rows, cols = (block.bottom - 1) // side - first_row + 1, (block.right - 1) // side - first_col + 1
    row, col = supports.top // side - first_row, supports.left // side - first_col
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    flags = torch.zeros(rows, cols, dtype=torch.bool)
    flags[row[inside], col[inside]] = True
    pixels = flags.repeat_interleave(side, 0).repeat_interleave(side, 1)
    top, left = block.top - first_row * side, block.left - first_col * side
    return pixels[top : top + block.height, left : left + block.width]


def per_cell(weights: Tensor, cell: int) -> Tensor:
    """Mean weights (S, rows, cols) over the cells of a block from those of its pixels (S, h, w), each cell's sum one.

    Args:
        weights: not negative, positive at every pixel for one scale at least.
        cell: side of a cell; the block's corner is one of a cell, and the last cells may be cut off.
    """
    sums = F.avg_pool2d(weights[None].float(), cell, ceil_mode=True, count_include_pad=False)[0]
    return sums / sums.sum(dim=0)
