"""Where a block was looked at how wide: the foveation that a pyramid of looks amounts to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.geometry import Window
from foveate.patches.extraction import Windows


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
