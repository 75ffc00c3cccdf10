"""The overview of an in-memory image, with the margin the policy looks at."""

from __future__ import annotations

from torch import Tensor

from foveate.geometry import CellGrid, Size, Window
from foveate.patches.resample import resample, window_taps


def overview_window(cells: Window, cell: int, margin: int) -> tuple[Window, Size]:
    """What to read for the policy to decide on a window of cells.

    Args:
        cells: the cells to decide on, in cells.
        cell: side of a cell in level-0 pixels.
        margin: the policy's margin in cells.

    Returns:
        The window in level-0 pixels (it may reach outside the image) and the size to read it at, one pixel a cell.
    """
    size = Size(cells.height + 2 * margin, cells.width + 2 * margin)
    top, left = cells.top - margin, cells.left - margin
    return Window(top * cell, left * cell, size.height * cell, size.width * cell), size


def overview_of(image: Tensor, cell: int, margin: int) -> Tensor:
    """The anti-aliased overview (..., C, h + 2 margin, w + 2 margin) of images (..., C, H, W), reflected outside."""
    size = Size(*image.shape[-2:])
    grid = CellGrid(size, cell)
    window, out = overview_window(Window(0, 0, grid.rows, grid.cols), cell, margin)
    taps = window_taps(window, out, size, size)
    return resample(image[..., *taps.needed.within(Window.of(size))], *taps.on(image.device))
