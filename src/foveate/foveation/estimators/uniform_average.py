"""UniformAverage: the baseline that mixes the patches of all widths equally."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from foveate.foveation.estimators.base import Draw, Estimator
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class UniformAverage(Estimator):
    """The mean of a location's patches with equal weights: `SoftExpectation` without a policy.

    Source: "Average" in arXiv 2007.15124, section 3.
    """

    name: Literal["average"] = "average"

    @property
    def learns(self) -> bool:
        """Never: all weights are equal."""
        return False

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """Equal weights, (N, S)."""
        return self.inference_weights(logits)

    def inference_weights(self, logits: Tensor) -> Tensor:
        """Equal weights, (N, S)."""
        return torch.full_like(logits, 1 / logits.shape[-1], requires_grad=False)
