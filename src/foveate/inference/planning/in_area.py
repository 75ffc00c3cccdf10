"""Which passes an area needs, and how many they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Window
from foveate.inference.planning.plan import Passes
from foveate.patches.extraction import Windows
from foveate.types import BoolArray


class BlockArea(NamedTuple):
    """What is looked at in a block, and beyond it as far as passes that begin in it reach.

    Attributes:
        block: level-0 pixels.
        around: (h', w') whether pixels are looked at: those of the block first, then what lies to its right and below.
    """

    block: Window
    around: BoolArray

    @property
    def inside(self) -> BoolArray:
        """(h, w) of the block alone."""
        return self.around[: self.block.height, : self.block.width]

    def meets(self, supports: Windows) -> Tensor:
        """Whether each of N supports holds a pixel of the block that is looked at, (N,)."""
        return meets(supports, self.block, self.inside)


class PassCount(NamedTuple):
    """Passes that begin in a block, so that each of an image is counted in one.

    Attributes:
        made: those whose supports hold a pixel that is looked at.
        skipped: the others.
    """

    made: int
    skipped: int


def meets(supports: Windows, corner: Window, inside: BoolArray) -> Tensor:
    """Whether each of N supports holds a pixel that is looked at, (N,).

    Args:
        supports: where predictions are used.
        corner: a window whose first pixel is that of `inside`.
        inside: (h, w) whether pixels are looked at; beyond them nothing is.
    """
    tops, lefts, side = supports
    corners = zip((tops - corner.top).tolist(), (lefts - corner.left).tolist(), strict=True)
    found = [bool(inside[max(0, t) : max(0, t + side), max(0, k) : max(0, k + side)].any()) for t, k in corners]
    return torch.tensor(found, dtype=torch.bool)


def count_begun(planned: Sequence[Passes], block: Window, area: BlockArea | None) -> PassCount:
    """How many of the passes that a block needs begin in it, by whether an area (None for everything) needs them."""
    made, total = 0, 0
    for passes in planned:
        tops, lefts, _ = passes.supports
        rows, cols = (tops >= block.top) & (tops < block.bottom), (lefts >= block.left) & (lefts < block.right)
        begun = passes.select(rows & cols)
        total += len(begun)
        made += len(begun) if area is None else int(meets(begun.supports, block, area.around).sum())
    return PassCount(made, total - made)
