"""Estimators without a choice: a fixed field of view, and the ensemble of models of one field of view each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.errors import ConfigError
from foveate.foveation.estimator import (
    Criterion,
    Draw,
    Estimator,
    Labelled,
    LocationOutput,
    Look,
    LossParts,
    Passing,
    Reading,
    Walk,
    each_scale,
    equal_weights,
    one_look,
    with_own_windows,
)
from foveate.package import torch

if TYPE_CHECKING:
    from torch import Tensor


class FixedScale(Estimator):
    """Always the same field of view, as in ordinary patch-based segmentation ("Patch 1..S" in the paper).

    Attributes:
        index: position of the field of view in the list; 0 is the narrowest.
        own_window: weight of a loss on the patch's whole window. With 0 the network learns only from the centre of the
            patch, over the target, which is a small part of a wide patch.
    """

    name: Literal["fixed"] = "fixed"
    index: int = Field(default=0, ge=0)
    own_window: float = Field(default=0.0, ge=0)

    def reads(self, scales: int) -> Reading:
        """The one scale."""
        return Reading((self.index,), windows=self.own_window > 0)

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The same one-hot row for every location, (N, S)."""
        weights = torch.zeros_like(logits, requires_grad=False)
        weights[:, self.index] = 1
        return weights

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the one scale."""
        return one_look(self.weights(logits, Draw()))

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """Over the target, and where asked over the whole window."""
        loss = super().loss(model, output, batch, criterion)
        return with_own_windows(loss, self.own_window, output, batch, criterion)


class Ensemble(Estimator):
    """Every scale is passed at every place, and the predicted probabilities are averaged with equal weights.

    With a `NetworkPerScale` the scales are those of S models, each trained alone with its `FixedScale`.

    Source: "Ensemble" in arXiv 2007.15124, section 3.
    """

    name: Literal["ensemble"] = "ensemble"

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """Nothing to train.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "an ensemble cannot be trained directly: train a model with each FixedScale, then combine them"
        )

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of each scale, which count alike."""
        return each_scale(equal_weights(logits))

    @property
    def walk(self) -> Walk:
        """By probability: logits of models trained apart have no common scale."""
        return Walk(by_probability=True)
