"""What predicts the blocks of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor

from foveate.data.area.area import AreaPart
from foveate.geometry import Window
from foveate.inference.planning.in_area import BlockArea

Prepared = TypeVar("Prepared")


class FinishedBlock(NamedTuple):
    """A block's result.

    Attributes:
        window: the block, level-0 pixels.
        logits: (C, h, w); None where nothing of the block is looked at.
        passes: patches through the network that are counted for it; those of an image are each counted in one block.
        plan: (L, rows, cols) which looks were made where, see `PassMap.shares`; None where none is.
        scale_weights: (S, h, w) how much each scale counted at each pixel; None where the estimator's own map says so.
        skipped: passes that were not made, as they meet nothing that is looked at; counted in the same way.
        part: what is looked at; None for all.
    """

    window: Window
    logits: Tensor | None
    passes: int
    plan: Tensor | None = None
    scale_weights: Tensor | None = None
    skipped: int = 0
    part: AreaPart | None = None

    @property
    def pixels(self) -> int:
        """Pixels that were looked at."""
        return self.window.size.pixels if self.part is None else int(self.part.inside.sum())


class BlockPredictor(Protocol[Prepared]):
    """Predicts blocks; the result of one does not depend on the others."""

    @property
    def reach(self) -> int:
        """How far supports that begin in a block may reach beyond it, level-0 pixels."""
        ...

    def prepare(self, block: Window, area: BlockArea | None) -> Prepared:
        """Read what can be read before the network runs; called in the thread that the reader belongs to.

        Args:
            block: level-0 pixels.
            area: what is looked at, one pixel of the block at least; None for everything.
        """
        ...

    def leave_out(self, area: BlockArea) -> FinishedBlock:
        """Count the passes that begin in a block of which nothing is looked at; called in the thread of the reader."""
        ...

    def predict(self, block: Prepared, ahead: Callable[[], Prepared | None]) -> FinishedBlock:
        """Run the network and stitch.

        Args:
            block: what `prepare` made.
            ahead: gives what it made of the next block, once that is read; None where there is none.
        """
        ...
