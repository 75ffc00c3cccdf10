"""SoftExpectation: the expected patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from foveate.foveation.estimators.base import Draw, Estimator

if TYPE_CHECKING:
    from torch import Tensor


class SoftExpectation(Estimator):
    """The mean of all patches of a location, weighted with their probabilities. Differentiable as it is.

    Every scale is read for every place, in training and in inference; the network runs once.

    Source: "Mean" in arXiv 2007.15124, section 2.2.
    """

    name: Literal["mean"] = "mean"

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)

    def inference_weights(self, logits: Tensor) -> Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)
