"""Area resampling, and the patches and overviews that are cut with it from an image held in memory.

Every output pixel is the mean of the image over its own footprint, so nothing aliases. The filter is written as *taps*:
per output position the source indices and their weights. Reflection at the border, fractional factors and fractional
offsets are then one mechanism, the same for files and for tensors.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import torch

from foveate.devices import on_device
from foveate.errors import GeometryError
from foveate.geometry import CellGrid, Size, Window

_OUTSIDE = "a window reaches outside its region; read the region that `region_window` gives"


class Taps(NamedTuple):
    """One axis of the filter.

    Attributes:
        position: (..., n, K) source positions, before reflection (may be negative or beyond the end).
        weight: (..., n, K) their weights, summing to one over K.
    """

    position: torch.Tensor
    weight: torch.Tensor


def area_taps(start: torch.Tensor, step: float, count: int) -> Taps:
    """Taps of `count` outputs; output k is the mean over `[start + k step, start + (k + 1) step)`.

    Args:
        start: (...) positions of the first footprint, in source pixels; float64.
        step: length of a footprint in source pixels; below 1 the source is magnified (nearest neighbour).
        count: number of outputs n.
    """
    low = start[..., None] + torch.arange(count, dtype=torch.float64, device=start.device) * step
    low = torch.round(low * 2**20) / 2**20  # 1/3 + 2/3 must be a whole pixel, or a sliver of a neighbour leaks in
    high = low + step
    index = low.floor()[..., None] + torch.arange(int(step) + 2, device=start.device)
    overlap = torch.minimum(index + 1, high[..., None]) - torch.maximum(index, low[..., None])
    weight = overlap.clamp(min=0)
    weight = torch.where(weight < 1e-5, 0, weight)
    # A tap without weight must not point outside what is read.
    index = torch.where(weight > 0, index, index.gather(-1, weight.argmax(dim=-1, keepdim=True)))
    used = (weight > 0).flatten(0, -2).any(dim=0)
    weight = weight[..., used] / weight.sum(dim=-1, keepdim=True)
    return Taps(index[..., used].long(), weight.float())


def reflect(index: torch.Tensor, length: int) -> torch.Tensor:
    """Mirror positions about the image's edges (edge pixel repeated) until they lie in [0, length).

    Mirroring at the edge, not at the edge pixel's centre, commutes with down-sampling: a pyramid level reflects alike.
    """
    folded = index.remainder(2 * length)
    return torch.where(folded < length, folded, 2 * length - 1 - folded)


def apply_taps(source: torch.Tensor, taps: Taps, dim: int) -> torch.Tensor:
    """Filter one axis of `source` with taps (n, K); integers become float32. The result shares no memory."""
    shape = [-1 if axis == dim else 1 for axis in range(source.dim())]
    count, indices = len(taps.position), taps.position.unbind(-1)
    stretches = [_stretch(index) for index in indices]
    even = min(stop - start for start, stop, _ in stretches)
    if 2 * even < count and source.device.type == "cpu" and dim == source.dim() - 1 > 0:
        # Picking single columns is several times slower than picking rows of the transposed image.
        return apply_taps(source.transpose(-1, -2).contiguous(), taps, dim - 1).transpose(-1, -2)
    parts = [_pick(source, index, stretch, dim) for index, stretch in zip(indices, stretches, strict=True)]
    if len(parts) == 1 and bool((taps.weight == 1).all()):
        return parts[0].clone(memory_format=torch.contiguous_format) if even == count else parts[0]
    out = parts[0].float() * taps.weight[:, 0].view(shape)
    for k in range(1, len(parts)):
        out += parts[k] * taps.weight[:, k].view(shape)
    return out


_Stretch: TypeAlias = tuple[int, int, int]  # where a part of some positions begins and ends, and its step


def _stretch(index: torch.Tensor) -> _Stretch:
    """The longest part of positions (n,) that can be sliced; empty for a GPU, which asking would only stall."""
    if index.device.type != "cpu" or len(index) < 2:
        return 0, 0, 1
    steps, counts = index.diff().unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    longest = int(torch.where(steps > 0, counts, 0).argmax())
    start, step = int(counts[:longest].sum()), int(steps[longest])
    return (start, start + int(counts[longest]) + 1, step) if step > 0 else (0, 0, 1)


def _pick(source: torch.Tensor, index: torch.Tensor, stretch: _Stretch, dim: int) -> torch.Tensor:
    """The source at positions (n,); a new tensor where not all of them are one stretch."""
    start, stop, step = stretch
    if start == stop:
        return source.index_select(dim, index)
    middle = source[(slice(None),) * dim + (slice(int(index[start]), int(index[stop - 1]) + 1, step),)]
    if stop - start == len(index):
        return middle
    # What is mirrored at the rims of an image; picking all by their positions takes five times as long.
    return torch.cat([source.index_select(dim, index[:start]), middle, source.index_select(dim, index[stop:])], dim)


class WindowTaps(NamedTuple):
    """Row and column taps of one window, relative to the part of the source they need.

    Attributes:
        needed: the source pixels that are read; always inside the source.
        rows, cols: taps into `needed`, reflected.
    """

    needed: Window
    rows: Taps
    cols: Taps

    def on(self, device: torch.device) -> tuple[Taps, Taps]:
        """Row and column taps on a device."""
        return Taps(*(part.to(device) for part in self.rows)), Taps(*(part.to(device) for part in self.cols))


def window_taps(window: Window, out: Size, image: Size, source: Size) -> WindowTaps:
    """Which pixels of a source raster (a pyramid level of the image) a window needs, and how they are weighted.

    Args:
        window: level-0 pixels, possibly reaching outside the image.
        out: size of the result.
        image: size of level 0.
        source: size of the level that is read.
    """
    top, height, rows = _axis(window.top, window.height, out.height, image.height, source.height)
    left, width, cols = _axis(window.left, window.width, out.width, image.width, source.width)
    return WindowTaps(Window(top, left, height, width), rows, cols)


def _axis(start: int, length: int, count: int, image: int, source: int) -> tuple[int, int, Taps]:
    # In whole numbers as far as possible: a pixel must get the same weights whatever window it is read in.
    whole, rest = divmod(start * source, image)
    first, last, taps = _phase_taps(rest / image, length * source / (count * image), count)
    if whole + first >= 0 and whole + last < source:
        return whole + first, last - first + 1, taps
    index = reflect(taps.position + (whole + first), source)
    first, last = int(index.min()), int(index.max())
    return first, last - first + 1, Taps(index - first, taps.weight)


@lru_cache(maxsize=1024)
@torch.inference_mode(False)  # they are kept, and a later call may have gradients
def _phase_taps(phase: float, step: float, count: int) -> tuple[int, int, Taps]:
    """First and last position, and taps relative to the first, of a footprint at a phase in [0, 1).

    Cached, because the windows of a grid share a few phases and building taps takes longer than applying them.
    """
    taps = area_taps(torch.tensor(phase, dtype=torch.float64), step, count)
    first, last = int(taps.position.min()), int(taps.position.max())
    return first, last, Taps(taps.position - first, taps.weight)


def resample(source: torch.Tensor, rows: Taps, cols: Taps) -> torch.Tensor:
    """Filter (..., h, w) with row and column taps to (..., n_rows, n_cols); dtype kept only where no mean is taken."""
    return apply_taps(apply_taps(source, rows, -2 % source.dim()), cols, -1 % source.dim()).contiguous()


def to_dtype(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Float means back to the dtype of the image; integers are rounded half up."""
    if values.dtype == dtype:
        return values
    return values.to(dtype) if dtype.is_floating_point else (values + 0.5).floor_().to(dtype)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an image at one power-of-two downsample.

    Attributes:
        pixels: (C, h, w), any real dtype, any device.
        top, left: position of its first pixel, in pixels of its own downsample.
        downsample: level-0 pixels per pixel.
    """

    pixels: torch.Tensor
    top: int
    left: int
    downsample: int


class Windows(NamedTuple):
    """Square windows of one side: `top` and `left` (N,) in level-0 pixels."""

    top: torch.Tensor
    left: torch.Tensor
    side: int

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each window."""
        return list(zip(self.top.tolist(), self.left.tolist(), strict=True))

    def centred(self, side: int) -> "Windows":
        """The windows of this side around the same centres."""
        shift = (self.side - side) // 2
        return Windows(self.top + shift, self.left + shift, side)


def region_downsample(downsample: float) -> int:
    """The largest power of two not above this downsample: what is left for the gather is a factor in [1, 2)."""
    return 1 << int(math.log2(downsample) + 1e-9)


def region_window(windows: Windows, downsample: int) -> Window:
    """The level-0 window, its corners multiples of the downsample, that holds all these windows."""
    top, left = int(windows.top.min()), int(windows.left.min())
    height = int(windows.top.max()) + windows.side - top
    width = int(windows.left.max()) + windows.side - left
    return Window(top, left, height, width).aligned(downsample)


def region_of(image: torch.Tensor, window: Window, downsample: int) -> Region:
    """The region of a window (from `region_window`) of an in-memory image (C, H, W), mirrored outside the image."""
    size = Size(*image.shape[-2:])
    taps = window_taps(window, Size(window.height // downsample, window.width // downsample), size, size)
    pixels = resample(image[:, *taps.needed.within(Window.of(size))], *taps.on(image.device))
    return Region(pixels, window.top // downsample, window.left // downsample, downsample)


def extract_patches(region: Region, windows: Windows, patch_size: int) -> torch.Tensor:
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
    if (plain := plain_patches(region, windows, patch_size)) is not None:
        return torch.stack(plain)
    rows = area_taps(windows.top.double() / region.downsample - region.top, step, patch_size)
    cols = area_taps(windows.left.double() / region.downsample - region.left, step, patch_size)
    return _gather(region.pixels, rows, cols)


def plain_patches(region: Region, windows: Windows, patch_size: int) -> list[torch.Tensor] | None:
    """Views (C, P, P) of a region's pixels, in their own dtype, where each patch is a plain part of it, else None.

    Copying such a part is ten times faster than picking pixels. Windows on a GPU are not asked: that would stall it.

    Raises:
        GeometryError: when the region does not hold one.
    """
    alike = windows.side == patch_size * region.downsample and windows.top.device.type == "cpu"
    if not alike or bool(((windows.top | windows.left) % region.downsample).any()):
        return None
    height, width = (side - patch_size for side in region.pixels.shape[-2:])
    tops, lefts = windows.top // region.downsample - region.top, windows.left // region.downsample - region.left
    if not bool(((tops >= 0) & (tops <= height) & (lefts >= 0) & (lefts <= width)).all()):
        raise GeometryError(_OUTSIDE)
    found = Windows(tops, lefts, patch_size).corners
    return [region.pixels[:, top : top + patch_size, left : left + patch_size] for top, left in found]


def _gather(pixels: torch.Tensor, rows: Taps, cols: Taps) -> torch.Tensor:
    """Weighted sum over taps (N, P, K) of `pixels` (C, h, w), as (N, C, P, P); K is at most 3 on either axis."""
    for taps, length in zip((rows, cols), pixels.shape[-2:], strict=True):
        if int(taps.position.min()) < 0 or int(taps.position.max()) >= length:
            raise GeometryError(_OUTSIDE)
    total: torch.Tensor | None = None
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


def overview_of(image: torch.Tensor, cell: int, margin: int) -> torch.Tensor:
    """The anti-aliased overview (..., C, h + 2 margin, w + 2 margin) of images (..., C, H, W), reflected outside."""
    size = Size(*image.shape[-2:])
    grid = CellGrid(size, cell)
    window, out = overview_window(Window(0, 0, grid.rows, grid.cols), cell, margin)
    taps = window_taps(window, out, size, size)
    return resample(image[..., *taps.needed.within(Window.of(size))], *taps.on(image.device))
