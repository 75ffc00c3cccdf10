"""Importance windows: how much a prediction counts at each place of its support, where supports overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.types import Blending


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
