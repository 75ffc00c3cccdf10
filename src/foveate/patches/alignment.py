"""Aligned prediction: read the part of a patch's output that lies over its target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def resize_logits(output: Tensor, side: int) -> Tensor:
    """Resample (N, C, h, w) logits to `side` x `side`; returned unchanged when they already are."""
    if output.shape[-2:] == (side, side):
        return output
    return F.interpolate(output, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
