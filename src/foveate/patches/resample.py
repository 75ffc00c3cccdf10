"""Area resampling: every output pixel is the mean of the image over its own footprint, so nothing aliases.

The filter is written as *taps*: per output position the source indices and their weights. Reflection at the border,
fractional factors and fractional offsets are then one mechanism, the same for files and for tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Size, Window


class Taps(NamedTuple):
    """One axis of the filter.

    Attributes:
        index: (..., n, K) source positions, before reflection (may be negative or beyond the end).
        weight: (..., n, K) their weights, summing to one over K.
    """

    index: Tensor
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
    """Filter one axis of `source` with taps (n, K); integers become float32."""
    shape = [1] * source.dim()
    shape[dim] = -1
    first, *rest = range(taps.index.shape[-1])
    if not rest and bool((taps.weight == 1).all()):
        return source.index_select(dim, taps.index[:, first])
    out = source.index_select(dim, taps.index[:, first]).float() * taps.weight[:, first].view(shape)
    for k in rest:
        out += source.index_select(dim, taps.index[:, k]) * taps.weight[:, k].view(shape)
    return out


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
        rows, cols = (Taps(axis.index.to(device), axis.weight.to(device)) for axis in (self.rows, self.cols))
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
    scale = source / image
    taps = area_taps(torch.tensor(start * scale, dtype=torch.float64), length * scale / count, count)
    index = reflect(taps.index, source)
    first, last = int(index.min()), int(index.max())
    return first, last - first + 1, Taps(index - first, taps.weight)


def resample(source: Tensor, rows: Taps, cols: Taps) -> Tensor:
    """Filter (..., h, w) with row and column taps to (..., n_rows, n_cols); dtype kept only where no mean is taken."""
    return apply_taps(apply_taps(source, rows, -2 % source.dim()), cols, -1 % source.dim())


def to_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float means back to the dtype of the image; integers are rounded half up."""
    if values.dtype == dtype:
        return values
    return values.to(dtype) if dtype.is_floating_point else torch.floor(values + 0.5).to(dtype)
