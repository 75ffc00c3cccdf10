"""Which passes an area needs."""

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


class Begun(NamedTuple):
    """Passes that begin in a block: each of an image does in one, where it is counted and drawn.

    Attributes:
        made: those whose supports hold a pixel that is looked at, in this block or in another.
        skipped: how many do not.
    """

    made: list[Passes]
    skipped: int

    @property
    def passes(self) -> int:
        """How many are made."""
        return sum(map(len, self.made))


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


def begun_in(planned: Sequence[Passes], block: Window, area: BlockArea | None) -> Begun:
    """Those of the passes that meet a block which begin in it, by whether an area (None for everything) needs them."""
    begun = [_begun(passes, block) for passes in planned]
    if area is None:
        return Begun(begun, 0)
    made = [passes.select(meets(passes.supports, block, area.around)) for passes in begun]
    return Begun(made, sum(map(len, begun)) - sum(map(len, made)))


def _begun(passes: Passes, block: Window) -> Passes:
    tops, lefts, _ = passes.supports
    rows, cols = (tops >= block.top) & (tops < block.bottom), (lefts >= block.left) & (lefts < block.right)
    return passes.select(rows & cols)
