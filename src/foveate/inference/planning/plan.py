"""A plan: which patches pass through the network, and where each counts."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from foveate.geometry import Window
from foveate.patches.extraction import Windows


class Passes(NamedTuple):
    """N passes whose supports have one side.

    Attributes:
        supports: where each prediction is used; patches are centred on their supports.
        scale_weights: (N, S) how the input of each pass is mixed from the scales; mostly one-hot.
        weight: (N,) how much each pass counts on its support, relative to others there.
    """

    supports: Windows
    scale_weights: Tensor
    weight: Tensor

    def __len__(self) -> int:  # a NamedTuple would count its fields
        return len(self.weight)

    def select(self, rows: slice | Tensor) -> Passes:
        """Some of the passes: a slice, or one boolean each."""
        tops, lefts, side = self.supports
        return Passes(Windows(tops[rows], lefts[rows], side), self.scale_weights[rows], self.weight[rows])


class Foveation(Protocol):
    """What a planner may ask of the policy."""

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Scale logits (N, S) of the cells under N level-0 positions inside the image."""
        ...


class Planner(Protocol):
    """A way of looking: a pure function from the foveation to the passes that a block of the output needs."""

    def passes(self, block: Window, foveation: Foveation) -> list[Passes]:
        """All passes whose support meets the block, in row-major order whatever the block."""
        ...
