"""Mixture: the mixture of the scales' predictions, not of their patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimators.base import Draw, Estimator, Look, each_scale, one_hot_argmax
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Mixture(Estimator):
    """P(y|x) = sum over the scales s of p_s times the aligned prediction on the patch of scale s.

    Training passes every scale of a location through the one network: S passes, each a sharp image, where mixed
    patches are none. The policy learns from the likelihood of the mixture, which needs no gradient past an argmax;
    the network learns besides from every patch's own whole window, so that a scale that the policy leaves is still
    taught, and wide patches are taught by more than their centre. At inference the most probable scale is passed, or
    several, whose predicted probabilities are averaged with the policy's.

    Attributes:
        own_window: weight of the loss of each scale on its own whole window.
        top: number of the most probable scales of a place that are passed at inference; null passes all.

    Source: ours; the likelihood is that of a mixture of experts (Jacobs et al. 1991) with the policy as the gate.
    """

    name: Literal["mixture"] = "mixture"
    own_window: float = Field(default=1.0, ge=0)
    top: int | None = Field(default=1, ge=1)

    @property
    def mixes_predictions(self) -> bool:
        """Always."""
        return True

    @property
    def own_window_weight(self) -> float:
        """Weight of the loss of every scale on its own whole window."""
        return self.own_window

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)

    @property
    def blends_probabilities(self) -> bool:
        """Where predictions of several scales are mixed."""
        return self.top != 1

    def inference_weights(self, logits: Tensor) -> Tensor:
        """The probabilities (N, S) of the scales that are passed, one-hot for one; rows sum to one."""
        if self.top == 1:
            return one_hot_argmax(logits)
        most = logits.shape[-1] if self.top is None else min(self.top, logits.shape[-1])
        values, scales = logits.topk(most, dim=-1)
        return torch.zeros_like(logits).scatter(-1, scales, values.softmax(dim=-1))

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the most probable scale, or one for each scale that counts."""
        return super().looks(logits) if self.top == 1 else each_scale(logits, self.inference_weights(logits))
