"""`DeepSupervision`: what a network with an auxiliary head returns while it trains."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class DeepSupervision(NamedTuple):
    """The prediction, and a second one from an earlier stage that only helps to train; in eval mode there is none.

    Attributes:
        logits: (N, classes, P', P').
        auxiliary: (N, classes, P', P'), from the encoder's stage before the last.
    """

    logits: Tensor
    auxiliary: Tensor
