"""Area resampling: every output pixel is the mean of the image over its own footprint, so nothing aliases.

The filter is written as *taps*: per output position the source indices and their weights. Reflection at the border,
fractional factors and fractional offsets are then one mechanism, the same for files and for tensors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Size, Window


class Taps(NamedTuple):
    """One axis of the filter.

    Attributes:
        position: (..., n, K) source positions, before reflection (may be negative or beyond the end).
        weight: (..., n, K) their weights, summing to one over K.
    """

    position: Tensor
    weight: Tensor


def area_taps(start: Tensor, step: float, count: int) -> Taps:
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


def reflect(index: Tensor, length: int) -> Tensor:
    """Mirror positions about the image's edges (edge pixel repeated) until they lie in [0, length).

    Mirroring at the edge, not at the edge pixel's centre, commutes with down-sampling: a pyramid level reflects alike.
    """
    folded = index.remainder(2 * length)
    return torch.where(folded < length, folded, 2 * length - 1 - folded)


def apply_taps(source: Tensor, taps: Taps, dim: int) -> Tensor:
    """Filter one axis of `source` with taps (n, K); integers become float32. The result shares no memory."""
    shape = [1] * source.dim()
    shape[dim] = -1
    run = _run(taps.position)
    if run is None and source.device.type == "cpu" and dim == source.dim() - 1 > 0:
        # Picking single columns is several times slower than picking rows of the transposed image.
        return apply_taps(source.transpose(-1, -2).contiguous(), taps, dim - 1).transpose(-1, -2)
    parts = [_pick(source, taps.position[:, k], run, dim) for k in range(taps.position.shape[-1])]
    if len(parts) == 1 and bool((taps.weight == 1).all()):
        return parts[0].clone(memory_format=torch.contiguous_format)
    out = parts[0].float() * taps.weight[:, 0].view(shape)
    for k in range(1, len(parts)):
        out += parts[k] * taps.weight[:, k].view(shape)
    return out


def _run(index: Tensor) -> int | None:
    """The step, when the positions (n, K) ascend evenly and can be sliced; asked of a GPU it would only stall it."""
    if index.device.type != "cpu" or index.shape[0] < 2:
        return None
    steps = index[1:] - index[:-1]
    step = int(steps[0, 0])
    return step if step > 0 and bool((steps == step).all()) else None


def _pick(source: Tensor, index: Tensor, run: int | None, dim: int) -> Tensor:
    if run is None:
        return source.index_select(dim, index)
    part = slice(int(index[0]), int(index[-1]) + 1, run)
    return source[(slice(None),) * dim + (part,)]


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
        rows, cols = (Taps(axis.position.to(device), axis.weight.to(device)) for axis in (self.rows, self.cols))
        return rows, cols


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
def _phase_taps(phase: float, step: float, count: int) -> tuple[int, int, Taps]:
    """First and last position, and taps relative to the first, of a footprint at a phase in [0, 1).

    Cached, because the windows of a grid share a few phases and building taps takes longer than applying them.
    """
    taps = area_taps(torch.tensor(phase, dtype=torch.float64), step, count)
    first, last = int(taps.position.min()), int(taps.position.max())
    return first, last, Taps(taps.position - first, taps.weight)


def resample(source: Tensor, rows: Taps, cols: Taps) -> Tensor:
    """Filter (..., h, w) with row and column taps to (..., n_rows, n_cols); dtype kept only where no mean is taken."""
    return apply_taps(apply_taps(source, rows, -2 % source.dim()), cols, -1 % source.dim()).contiguous()


def to_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float means back to the dtype of the image; integers are rounded half up."""
    if values.dtype == dtype:
        return values
    return values.to(dtype) if dtype.is_floating_point else (values + 0.5).floor_().to(dtype)
