"""The estimators in use: a fixed field of view, an ensemble of those, two with a policy, and two that look closer.

`CoarseFirst` and `Cascade` look widely everywhere and closer where that pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.errors import ConfigError
from foveate.foveation.estimator import (
    Asked,
    Criterion,
    Draw,
    Estimator,
    Labelled,
    Learned,
    LocationOutput,
    Look,
    LossParts,
    Passing,
    Pyramid,
    Reading,
    Walk,
    each_scale,
    equal_weights,
    gumbel_noise,
    one_hot_argmax,
    one_look,
    seeded_noise,
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


class CoarseFirst(Pyramid):
    """Training passes each location at one random scale. Inference looks closer where the wide look is uncertain.

    So all passes of a step see different places, and each teaches its whole window: at equal passes this teaches a
    shared network more than every scale of fewer places, as `Mixture` passes them. At inference the pyramid planner
    passes the widest windows everywhere, and narrower ones, with a margin, where the prediction of the wide ones is
    uncertain, as far as the budget goes. No policy network is asked: the wide look, already paid for, is the policy.

    Source: ours; `docs/decisions/0008-coarse-first.md`.
    """

    name: Literal["coarse_first"] = "coarse_first"

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """One-hot rows (N, S) at the scales that were drawn."""
        return one_hot_argmax(logits)

    def reads(self, scales: int) -> Reading:
        """One of the scales, which is drawn; each as often as the others."""
        return Reading(tuple(range(scales)), windows=True, drawn=True)

    def logits(self, asked: Asked) -> Tensor:
        """The scales that were drawn when the places were read; else noise, which makes each equally likely."""
        return seeded_noise(asked) if asked.drawn is None else asked.drawn

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """Over the target and over the whole window, which count alike."""
        return with_own_windows(super().loss(model, output, batch, criterion), 1, output, batch, criterion)


class Cascade(Pyramid):
    """Every field of view is a look. Each closer look gets what the next wider one saw of its window.

    What is handed on is the wider decoder's map and its class probabilities, cropped by geometry. A training location
    is one wide window and some closer ones anywhere inside it; every look learns from its own window. At inference the
    pyramid planner looks widely everywhere, and closer where the wide look is uncertain, as far as the budget goes.

    Attributes:
        share: use one set of weights for all looks, except for batch normalisation: every pass teaches all looks. False
            gives each look weights of its own.
        closer_per_wide: in training, the number of closer windows of each further look inside a wide one.
        wide_elsewhere: in training, the number of additional wide windows, drawn from the whole image, without closer
            ones.
        drop_context: share of the closer windows in training that get no context, so that a look also works alone.
        context: where the context enters: the "features" of an encoder, the "input" or the "logits" of any network, or
            "none"; "auto" takes features if the network has them, else the input.
        handed: what the context holds: the decoder's "map", "probabilities" or "both". For a network without a decoder
            it is always probabilities.
        gain: factor on the context where it enters. Its weights start at zero; a larger factor lets them grow faster.

    Source: ours.
    """

    name: Literal["cascade"] = "cascade"
    share: bool = True
    closer_per_wide: int = Field(default=2, ge=1)
    wide_elsewhere: int = Field(default=0, ge=0)
    drop_context: float = Field(default=0.2, ge=0, le=1)
    context: Literal["auto", "features", "input", "logits", "none"] = "auto"
    handed: Literal["both", "map", "probabilities"] = "both"
    gain: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @staticmethod
    def check_looks(looks: Sequence[int]) -> None:
        """Refuse looks (level-0 pixels, widest first) that do not nest.

        Raises:
            ConfigError: saying which would.
        """
        if len(looks) < 2:
            raise ConfigError(
                f"a cascade needs at least two looks, widest first, such as [1024, 256]; got {list(looks)}"
            )
        if any(wide <= close for wide, close in pairwise(looks)):
            raise ConfigError(
                f"looks go from the widest to the closest, as {sorted(set(looks), reverse=True)}; got {list(looks)}"
            )
        if any(wide % close for wide, close in pairwise(looks)):
            nearest = [looks[-1]]
            for wide in reversed(looks[:-1]):
                nearest.insert(0, max(2, round(wide / nearest[0])) * nearest[0])
            raise ConfigError(
                f"looks must nest, each a whole multiple of the next: {list(looks)} do not, {nearest} would"
            )

    def reads(self, scales: int) -> Reading:
        """A wide window, and nested ones of every further look."""
        passes = 1 + self.wide_elsewhere + self.closer_per_wide * (scales - 1)
        return Reading(tuple(range(scales)), passes, windows=True, nested=(self.closer_per_wide, self.wide_elsewhere))

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The same share of every look, (N, S)."""
        return equal_weights(logits)

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """The mean over the looks, however many windows each has, of the loss on their own windows."""
        pattern = batch.scales[0].tolist()
        losses: dict[int, Tensor] = {}
        for scale in sorted(set(pattern)):
            mine = [j for j, other in enumerate(pattern) if other == scale]
            heads = [head[:, mine].flatten(0, 1) for head in (output.own_logits, *output.auxiliary)]
            loss = criterion.of_heads(heads, batch.window_labels[:, mine].flatten(0, 1))
            losses[model.scales.fields_of_view[scale]] = loss.total
        parts = {f"look/{view}": loss.detach() for view, loss in losses.items()}
        return LossParts(torch.stack(list(losses.values())).mean(), parts)
