"""Estimators that decide for each place: a fixed field of view, an ensemble of those, and the two with a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.errors import ConfigError
from foveate.foveation.estimator import (
    Criterion,
    Draw,
    Estimator,
    Labelled,
    Learned,
    LocationOutput,
    Look,
    LossParts,
    Passing,
    Reading,
    Walk,
    each_scale,
    equal_weights,
    gumbel_noise,
    one_hot_argmax,
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


class GumbelSoftmax(Learned):
    """Samples a scale with Gumbel noise. Inference takes the most probable scale, without noise.

    Training passes the patch that was sampled, as inference does, with the gradient of the relaxed sample
    (straight-through). As "gumbel_soft" it passes the mixture that the relaxed sample says.

    Attributes:
        tau_end: temperature at the end of training. It begins at 1 and falls geometrically; with 1 it stays there.

    Source: "GSM" in arXiv 2007.15124, section 2.2; Jang et al. 2017, Maddison et al. 2017.
    """

    name: Literal["gumbel", "gumbel_soft"] = "gumbel"
    tau_end: float = Field(default=0.5, gt=0)

    def temperature(self, progress: float) -> float:
        """The temperature after this share of the training."""
        return float(self.tau_end ** min(max(progress, 0.0), 1.0))

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """A one-hot sample per row, (N, S); a relaxed one where it is soft."""
        soft = ((logits + gumbel_noise(logits, draw.generator)) / self.temperature(draw.progress)).softmax(dim=-1)
        return one_hot_argmax(soft) + (soft - soft.detach()) if self.name == "gumbel" else soft

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the most probable scale."""
        return one_look(one_hot_argmax(logits))


class Mixture(Learned):
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

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)

    def reads(self, scales: int) -> Reading:
        """Every scale, each for a pass of its own."""
        return Reading(tuple(range(scales)), passes=scales, windows=self.own_window > 0)

    def train(self, model: Passing, logits: Tensor, patches: Tensor, draw: Draw) -> LocationOutput:
        """A pass of every scale, whose predictions are mixed."""
        return model.pass_each(logits, patches, self.weights(logits, draw))

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """Over the target, and of every pass over its own window."""
        loss = super().loss(model, output, batch, criterion)
        return with_own_windows(loss, self.own_window, output, batch, criterion)

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the most probable scale, or one of each scale that counts."""
        if self.top == 1:
            return one_look(one_hot_argmax(logits))
        most = logits.shape[-1] if self.top is None else min(self.top, logits.shape[-1])
        values, scales = logits.topk(most, dim=-1)
        return each_scale(torch.zeros_like(logits).scatter(-1, scales, values.softmax(dim=-1)))

    @property
    def walk(self) -> Walk:
        """By probability where predictions of several scales are mixed."""
        return Walk(by_probability=self.top != 1)
