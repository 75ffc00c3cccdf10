"""How outputs return to the image: cropped over the target, weighted where they overlap, handed on as context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.errors import GeometryError
from foveate.types import Blending


def crop_central(output: Tensor, fraction: float, side: int) -> Tensor:
    """Cut the central part out of each output and resample it, bilinearly, to the target's side.

    Args:
        output: (N, C, P', P') logits over a patch's whole window.
        fraction: side of the kept part divided by the side of the window, in (0, 1]: T / f for a target of side T.
        side: side of the result in pixels, T.

    Returns:
        (N, C, side, side) logits over the target. Pixel centres correspond (`align_corners=False`); neighbours just
        outside the kept part take part in the interpolation, as they are known.
    """
    if fraction == 1:
        return resize_logits(output, side)
    centres = (torch.arange(side, dtype=torch.float32, device=output.device) + 0.5) * (2 * fraction / side) - fraction
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
    grid = grid.to(output.dtype).expand(output.shape[0], -1, -1, -1)
    return F.grid_sample(output, grid, mode="bilinear", padding_mode="border", align_corners=False)


def middle_of(output: Tensor, share: float) -> Tensor:
    """The middle, of a share of the side, of outputs (N, C, P', P') at their own resolution: (N, C, m, m)."""
    if share == 1:
        return output
    side = output.shape[-1]
    rim = (1 - share) * side / 2
    if rim == round(rim):
        return output[..., round(rim) : side - round(rim), round(rim) : side - round(rim)]
    return crop_central(output, share, max(1, round(share * side)))


def chosen_crops(output: Tensor, weights: Tensor, views: Sequence[int], side: int) -> Tensor:
    """Each output over its target, read at the fields of view that its weights choose.

    Args:
        output: (N, C, P', P') logits over patches' whole windows.
        weights: (N, S) of the scales; only those that are not zero, or have a gradient, are read.
        views: S fields of view, level-0 pixels.
        side: of the target.

    Returns:
        (N, C, side, side) sums over the scales.

    Raises:
        GeometryError: when all weights are zero.
    """
    total = None
    for scale, view in enumerate(views):
        share = weights[:, scale]
        if not share.requires_grad and bool((share == 1).all()):
            return crop_central(output, side / view, side)
        # One-hot weights without a gradient leave most rows out of most scales.
        rows = torch.arange(len(output), device=output.device)
        rows = rows if share.requires_grad else rows[share != 0]
        if len(rows) == 0:
            continue
        part = crop_central(output[rows], side / view, side)
        part = part * share[rows].to(part.dtype).view(-1, 1, 1, 1)
        if total is None:
            total = part.new_zeros(len(output), *part.shape[1:])
        total = total.index_add(0, rows, part)
    if total is None:
        raise GeometryError("scale weights of zero: each row must sum to one")
    return total


def weighted_crops(output: Tensor, weights: Tensor, views: Sequence[int], side: int, scales: Sequence[int]) -> Tensor:
    """As `chosen_crops`, of these scales, without looking at the weights, which would wait for the device."""
    parts = []
    for scale in scales:
        part = crop_central(output, side / views[scale], side)
        share = weights[:, scale].to(part.dtype).view(-1, 1, 1, 1)
        parts.append(part if len(scales) == 1 else torch.where(share == 0, 0, part * share))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)


def resize_logits(output: Tensor, side: int) -> Tensor:
    """Resample (N, C, h, w) logits to `side` x `side`; returned unchanged when they already are."""
    if output.shape[-2:] == (side, side):
        return output
    return F.interpolate(output, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def importance_window(side: int, blending: Blending) -> Tensor:
    """Weights (side, side) of one support, symmetric, in (0, 1], never zero: a pixel seen once must still count.

    Args:
        side: side of the support in pixels.
        blending: "none" (all one), "linear" (a pyramid), "hann" (raised cosine) or "gaussian" (sigma side / 8, as in
            nnU-Net and MONAI, with a floor of 1e-3).
    """
    ramp = _RAMPS[blending](side).float()
    return ramp[:, None] * ramp[None, :]


def _none(side: int) -> Tensor:
    return torch.ones(side, dtype=torch.float64)


def _linear(side: int) -> Tensor:
    position = torch.arange(side, dtype=torch.float64) + 0.5
    return torch.minimum(position, side - position) * (2 / side)


def _hann(side: int) -> Tensor:
    position = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.sin(torch.pi * position) ** 2


def _gaussian(side: int) -> Tensor:
    position = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return torch.exp(-0.5 * (position / (side / 8)) ** 2).clamp(min=1e-3)


_RAMPS = {"none": _none, "linear": _linear, "hann": _hann, "gaussian": _gaussian}


class Context(NamedTuple):
    """What wider looks handed on, and where in their windows N closer ones lie.

    Attributes:
        seen: (N, D, m, m) over the whole windows of the wider looks.
        corners: (N, 2) top and left of the closer windows in the wider ones, as shares of the latter's side; float.
        share: side of a closer window as a share of the wider one's.
        kept: (N,) 1 where a closer look gets its context, 0 where it stands alone; all get it when None.
    """

    seen: Tensor
    corners: Tensor
    share: float
    kept: Tensor | None = None

    def over(self, height: int, width: int) -> Tensor:
        """The context (N, D, height, width) over the closer windows.

        A value is read at the centre of each pixel, bilinearly between the centres of the wide map, those just outside
        the closer window included: that is the halo. Where several of the map's pixels lie in one, their mean is taken;
        beyond the wide window the outermost value goes on.
        """
        factors = [
            max(1, math.ceil(self.share * side / count))
            for side, count in zip(self._side, (height, width), strict=True)
        ]
        grid = self._centres(height * factors[0], width * factors[1])
        found = F.grid_sample(self.seen.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        found = F.avg_pool2d(found, factors) if max(factors) > 1 else found
        return found if self.kept is None else found * self.kept.view(-1, 1, 1, 1).to(found.dtype)

    @property
    def _side(self) -> tuple[int, int]:
        return self.seen.shape[-2], self.seen.shape[-1]

    def _centres(self, height: int, width: int) -> Tensor:
        """Where values are read, (N, height, width, 2) as (x, y) in [-1, 1] over the wide windows."""
        corners = self.corners.to(self.seen.device, torch.float32)
        rows, cols = (
            corners[:, axis, None] + (torch.arange(count, device=corners.device) + 0.5) * (self.share / count)
            for axis, count in ((0, height), (1, width))
        )
        shape = (corners.shape[0], height, width)  # `len` would make it a constant of an exported network
        return torch.stack([cols[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1) * 2 - 1
