"""The contract of an estimator."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.config_base import Section


class Draw(NamedTuple):
    """What an estimator may depend on besides the logits, so that it keeps no state of its own.

    Attributes:
        progress: share of the training done, in [0, 1]; annealing follows it.
        generator: source of randomness on the logits' device; None is the global one.
    """

    progress: float = 0.0
    generator: torch.Generator | None = None


class Estimator(Section):
    """A strategy from scale logits (N, S) to scale weights (N, S), each row summing to one.

    The weights say how much of each scale's patch enters the network's input, and how much of each scale's aligned
    output counts. Their gradient is what the policy learns from.
    """

    @property
    def learns(self) -> bool:
        """Whether the weights depend on the policy at all."""
        return True

    @property
    def mixes_predictions(self) -> bool:
        """Whether training passes every scale and mixes the predictions, instead of mixing the patches."""
        return False

    @property
    def own_window_weight(self) -> float:
        """Weight of a loss of every scale's prediction on its own whole window; only where predictions are mixed."""
        return 0.0

    def scales_read(self, scales: int) -> tuple[int, ...]:
        """The scales whose patches training needs, of `scales` in all."""
        return tuple(range(scales))

    @abstractmethod
    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """Weights for training, (N, S), differentiable in the logits where the estimator learns."""

    @abstractmethod
    def inference_weights(self, logits: Tensor) -> Tensor:
        """Weights for inference, (N, S): deterministic; a one-hot row costs reading one patch."""


def one_hot_argmax(values: Tensor) -> Tensor:
    """One-hot rows (N, S) at the largest value, the narrowest of equals; no gradient, dtype kept."""
    return F.one_hot(values.argmax(dim=-1), values.shape[-1]).to(values.dtype)
