"""Stitching: place the predictions of a block's passes on the block, weighted, and normalise."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.errors import GeometryError
from foveate.geometry import Window
from foveate.inference.plan import Passes
from foveate.patches.blending import importance_window
from foveate.types import Blending


class Stitcher:
    """Accumulates logits over one block.

    At a pixel, contributions are added in the order of the passes, which a planner keeps the same whatever the
    block; so the sum does not depend on how the image was cut into blocks.

    Args:
        block: the part of the image to fill, level-0 pixels.
        blending: importance of a prediction over its support.
        device: where the sums are kept.
    """

    def __init__(self, block: Window, blending: Blending, device: torch.device) -> None:
        self._block = block
        self._blending = blending
        self._weights = torch.zeros(block.height, block.width, device=device)
        self._sums: Tensor | None = None

    def add(self, passes: Passes, logits: Tensor) -> None:
        """Add the predictions (N, C, side, side) of N passes."""
        tops, lefts, side = passes.supports
        importance = importance_window(side, self._blending).to(logits.device)
        if self._sums is None:
            self._sums = torch.zeros(logits.shape[1], *self._weights.shape, device=logits.device)
        weighted = logits.float() * importance * passes.weight.to(logits.device).view(-1, 1, 1, 1)
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            support = Window(top, left, side, side)
            inside = support.intersection(self._block)
            if inside is None:
                continue
            there, here = inside.within(self._block), inside.within(support)
            self._sums[:, *there] += weighted[i][:, *here]
            self._weights[there] += importance[here] * passes.weight[i].item()

    def result(self) -> Tensor:
        """The weighted mean logits (C, h, w) of the block.

        Raises:
            GeometryError: when a pixel was covered by no pass.
        """
        if self._sums is None or bool((self._weights <= 0).any()):
            raise GeometryError(f"the plan leaves pixels of {self._block} without a prediction")
        return self._sums / self._weights
