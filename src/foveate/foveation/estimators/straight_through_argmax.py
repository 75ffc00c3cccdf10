"""StraightThroughArgmax: the most probable patch, with a gradient copied past the argmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from foveate.foveation.estimators.base import Draw, Estimator, one_hot_argmax

if TYPE_CHECKING:
    from torch import Tensor


class StraightThroughArgmax(Estimator):
    """The patch of the most probable scale. The gradient of the one-hot vector is copied to the probabilities.

    Attributes:
        inverse: divide that gradient by the probability, d/dp = (1/p) d/dw, so that an unlikely scale does not learn
            slowly. False copies the gradient as it is.

    Source: "Mode" in arXiv 2007.15124, section 2.2, whose code has the inverse form.
    """

    name: Literal["mode"] = "mode"
    inverse: bool = True

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """One-hot rows (N, S) that carry the gradient of p, or of log p when `inverse`."""
        carrier = logits.log_softmax(dim=-1) if self.inverse else logits.softmax(dim=-1)
        return one_hot_argmax(logits) + (carrier - carrier.detach())

    def inference_weights(self, logits: Tensor) -> Tensor:
        """One-hot rows (N, S) at the most probable scale."""
        return one_hot_argmax(logits)
