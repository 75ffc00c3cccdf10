"""What predicts the blocks of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor

from foveate.geometry import Window

Prepared = TypeVar("Prepared")


class FinishedBlock(NamedTuple):
    """A block's result.

    Attributes:
        window: the block, level-0 pixels.
        logits: (C, h, w).
        passes: patches through the network that are counted for it; those of an image are each counted in one block.
        scale_weights: (S, h, w) how much each scale counted at each pixel; None where the estimator's own map says so.
    """

    window: Window
    logits: Tensor
    passes: int
    scale_weights: Tensor | None = None


class BlockPredictor(Protocol[Prepared]):
    """Predicts blocks; the result of one does not depend on the others."""

    def prepare(self, block: Window) -> Prepared:
        """Read what can be read before the network runs; called in the thread that the reader belongs to."""
        ...

    def predict(self, block: Prepared, ahead: Callable[[], Prepared | None]) -> FinishedBlock:
        """Run the network and stitch.

        Args:
            block: what `prepare` made.
            ahead: gives what it made of the next block, once that is read; None where there is none.
        """
        ...
