"""Cut patches and overviews out of an image held in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.errors import GeometryError
from foveate.geometry import CellGrid, Size, Window
from foveate.patches.resample import Taps, area_taps, resample, window_taps


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an image at one power-of-two downsample.

    Attributes:
        pixels: (C, h, w), any real dtype, any device.
        top, left: position of its first pixel, in pixels of its own downsample.
        downsample: level-0 pixels per pixel.
    """

    pixels: Tensor
    top: int
    left: int
    downsample: int


_OUTSIDE = "a window reaches outside its region; read the region that `region_window` gives"


class Windows(NamedTuple):
    """Square windows of one side: `top` and `left` (N,) in level-0 pixels."""

    top: Tensor
    left: Tensor
    side: int


def region_downsample(downsample: float) -> int:
    """The largest power of two not above this downsample: what is left for the gather is a factor in [1, 2)."""
    return 1 << int(math.log2(downsample) + 1e-9)


def region_window(windows: Windows, downsample: int) -> Window:
    """The level-0 window, its corners multiples of the downsample, that holds all these windows."""
    top, left = int(windows.top.min()), int(windows.left.min())
    height = int(windows.top.max()) + windows.side - top
    width = int(windows.left.max()) + windows.side - left
    return Window(top, left, height, width).aligned(downsample)


def region_of(image: Tensor, window: Window, downsample: int) -> Region:
    """The region of a window (from `region_window`) of an in-memory image (C, H, W), mirrored outside the image."""
    size = Size(*image.shape[-2:])
    taps = window_taps(window, Size(window.height // downsample, window.width // downsample), size, size)
    pixels = resample(image[:, *taps.needed.within(Window.of(size))], *taps.on(image.device))
    return Region(pixels, window.top // downsample, window.left // downsample, downsample)


def extract_patches(region: Region, windows: Windows, patch_size: int) -> Tensor:
    """The anti-aliased patches of N windows, each `patch_size` wide.

    Args:
        region: pixels that hold the windows; `region_window` says which to read.
        windows: N windows of one side, level-0 pixels.
        patch_size: side P of a patch.

    Returns:
        (N, C, P, P), float32, or the region's dtype where no mean is taken (factor 1 on whole pixels).

    Raises:
        GeometryError: when the region is coarser than the patches, or does not hold a window.
    """
    step = windows.side / patch_size / region.downsample
    if step < 1:
        raise GeometryError(
            f"a region at downsample {region.downsample} is too coarse for patches of {patch_size} px over "
            f"{windows.side} px; read it at {region_downsample(windows.side / patch_size)}"
        )
    corners = plain_corners(region, windows, patch_size)
    if corners is not None:
        return torch.stack(plain_patches(region, corners, patch_size))
    rows = area_taps(windows.top.double() / region.downsample - region.top, step, patch_size)
    cols = area_taps(windows.left.double() / region.downsample - region.left, step, patch_size)
    _check_inside(region, rows, cols)
    return _gather(region.pixels, rows, cols)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device; the copy to a GPU is made beside what comes next, from memory that it can read itself."""
    if values.device.type == "cpu" and device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _check_inside(region: Region, rows: Taps, cols: Taps) -> None:
    for taps, length in zip((rows, cols), region.pixels.shape[-2:], strict=True):
        if int(taps.position.min()) < 0 or int(taps.position.max()) >= length:
            raise GeometryError(_OUTSIDE)


def plain_corners(region: Region, windows: Windows, patch_size: int) -> list[tuple[int, int]] | None:
    """Where the patches begin in a region, when each is a plain part of its pixels, else None.

    Copying such a part is ten times faster than picking pixels. Windows on a GPU are not asked: that would stall it.
    """
    if windows.side != patch_size * region.downsample or windows.top.device.type != "cpu":
        return None
    if bool(((windows.top | windows.left) % region.downsample).any()):
        return None
    tops, lefts = windows.top // region.downsample - region.top, windows.left // region.downsample - region.left
    return list(zip(tops.tolist(), lefts.tolist(), strict=True))


def plain_patches(region: Region, corners: list[tuple[int, int]], patch_size: int) -> list[Tensor]:
    """Views (C, P, P) of a region's pixels, in their own dtype, which begin at its `plain_corners`.

    Raises:
        GeometryError: when the region does not hold one.
    """
    height, width = region.pixels.shape[-2:]
    for top, left in corners:
        if not (0 <= top <= height - patch_size and 0 <= left <= width - patch_size):
            raise GeometryError(_OUTSIDE)
    return [region.pixels[:, top : top + patch_size, left : left + patch_size] for top, left in corners]


def _gather(pixels: Tensor, rows: Taps, cols: Taps) -> Tensor:
    """Weighted sum over taps (N, P, K) of `pixels` (C, h, w), as (N, C, P, P); K is at most 3 on either axis."""
    total: Tensor | None = None
    plain = bool((rows.weight == 1).all()) and bool((cols.weight == 1).all())
    rows, cols = (Taps(*(on_device(values, pixels.device) for values in taps)) for taps in (rows, cols))
    for i in range(rows.position.shape[-1]):
        for j in range(cols.position.shape[-1]):
            part = pixels[:, rows.position[:, :, None, i], cols.position[:, None, :, j]].transpose(0, 1)
            weight = rows.weight[:, None, :, None, i] * cols.weight[:, None, None, :, j]
            if plain:
                return part.contiguous()
            total = part * weight if total is None else total.addcmul_(part.to(weight.dtype), weight)
    assert total is not None  # area_taps returns at least one tap
    return total


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
