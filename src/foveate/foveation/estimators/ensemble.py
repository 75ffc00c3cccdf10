"""Ensemble: the baseline that asks one trained network per scale, and averages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from foveate.errors import ConfigError
from foveate.foveation.estimators.base import Draw, Estimator, Look, each_scale
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Ensemble(Estimator):
    """Every scale is passed at every place, and the predicted probabilities are averaged with equal weights.

    With a `NetworkPerScale` the scales are those of S models, each trained alone with its `FixedScale`.

    Source: "Ensemble" in arXiv 2007.15124, section 3.
    """

    name: Literal["ensemble"] = "ensemble"

    @property
    def learns(self) -> bool:
        """Never: all weights are equal."""
        return False

    @property
    def blends_probabilities(self) -> bool:
        """Always: logits of models trained apart have no common scale."""
        return True

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """Nothing to train.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("an ensemble is not trained itself: train a model with each FixedScale, then join them")

    def inference_weights(self, logits: Tensor) -> Tensor:
        """Equal weights, (N, S)."""
        return torch.full_like(logits, 1 / logits.shape[-1], requires_grad=False)

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass for each scale."""
        return each_scale(logits, self.inference_weights(logits))
