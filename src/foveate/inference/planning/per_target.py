"""The planner of the paper: one pass, or one for each scale, for every target window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.foveation.estimators import Estimator
from foveate.geometry import Size, Window, tile_starts
from foveate.inference.planning.plan import Foveation, Passes
from foveate.patches.extraction import Windows


@dataclass(frozen=True, slots=True)
class PerTarget:
    """Targets tile the image; each gets the passes that the estimator makes of its cell's logits.

    Attributes:
        image: size of the image.
        target: side T of a target, level-0 pixels.
        overlap: share of the side that neighbouring targets overlap.
        estimator: turns scale logits into scale weights.
    """

    image: Size
    target: int
    overlap: float
    estimator: Estimator

    def passes(self, block: Window, foveation: Foveation) -> list[Passes]:
        """The estimator's looks at every target that meets the block."""
        stride = target_stride(self.target, self.overlap)
        tops = _starts(self.image.height, self.target, stride, block.top, block.bottom)
        lefts = _starts(self.image.width, self.target, stride, block.left, block.right)
        grid = torch.cartesian_prod(tops, lefts).reshape(-1, 2)
        centre = grid + self.target // 2
        rows = centre[:, 0].clamp(max=self.image.height - 1)
        cols = centre[:, 1].clamp(max=self.image.width - 1)
        looks = self.estimator.looks(foveation.logits_at(rows, cols))
        supports = Windows(grid[:, 0], grid[:, 1], self.target)
        return [Passes(supports, look.scale_weights, look.weight).select(look.weight > 0) for look in looks]


def target_stride(target: int, overlap: float) -> int:
    """Pixels from one target of this side to the next, which overlap by this share of it."""
    return max(1, round(target * (1 - overlap)))


def _starts(length: int, side: int, stride: int, first: int, last: int) -> Tensor:
    """Starts of the image's tiles that meet [first, last)."""
    starts = torch.tensor(tile_starts(length, side, stride))
    return starts[(starts + side > first) & (starts < last)]
