"""The estimators in use: a fixed field of view, an ensemble of those, two with a policy, and two that look closer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from foveate.errors import ConfigError
from foveate.foveation import estimator as base
from foveate.package import torch
from foveate.types import Entrance, Handed


class FixedScale(base.Estimator):
    """Always the same field of view, as in ordinary patch-based segmentation ("Patch 1..S" in the paper).

    Attributes:
        index: position of the field of view in the list; 0 is the narrowest.
        own_window: weight of a loss on the patch's whole window. With 0 the network learns only from the centre of the
            patch, over the target, which is a small part of a wide patch.
    """

    name: Literal["fixed"] = "fixed"
    index: int = Field(default=0, ge=0)
    own_window: float = Field(default=0.0, ge=0)

    def reads(self, scales: int) -> base.Reading:
        """The one scale."""
        return base.Reading((self.index,), windows=self.own_window)

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """The same one-hot row for every location, (N, S)."""
        weights = torch.zeros_like(logits, requires_grad=False)
        weights[:, self.index] = 1
        return weights

    def looks(self, logits: torch.Tensor) -> list[base.Look]:
        """One pass of the one scale."""
        return base.one_look(self.weights(logits, base.Draw()))


class Ensemble(base.Estimator):
    """Every scale is passed at every place, and the predicted probabilities are averaged with equal weights.

    With a `NetworkPerScale` the scales are those of S models, each trained alone with its `FixedScale`.

    Source: "Ensemble" in arXiv 2007.15124, section 3.
    """

    name: Literal["ensemble"] = "ensemble"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """Nothing to train.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "an ensemble cannot be trained directly: train a model with each FixedScale, then combine them"
        )

    def looks(self, logits: torch.Tensor) -> list[base.Look]:
        """One pass of each scale, which count alike."""
        return base.each_scale(base.equal_weights(logits))

    @property
    def walk(self) -> base.Walk:
        """By probability: logits of models trained apart have no common scale."""
        return base.Walk(by_probability=True)


class GumbelSoftmax(base.Learned):
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

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """A one-hot sample per row, (N, S); a relaxed one where it is soft."""
        soft = ((logits + base.gumbel_noise(logits, draw.generator)) / self.temperature(draw.progress)).softmax(dim=-1)
        return base.one_hot_argmax(soft) + (soft - soft.detach()) if self.name == "gumbel" else soft


class Mixture(base.Learned):
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

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)

    def reads(self, scales: int) -> base.Reading:
        """Every scale, each for a pass of its own."""
        return base.Reading(tuple(range(scales)), passes=scales, windows=self.own_window)

    def train(
        self, model: base.Passing, logits: torch.Tensor, patches: torch.Tensor, draw: base.Draw
    ) -> base.LocationOutput:
        """A pass of every scale, whose predictions are mixed."""
        return model.pass_each(logits, patches, self.weights(logits, draw))

    def looks(self, logits: torch.Tensor) -> list[base.Look]:
        """One pass of the most probable scale, or one of each scale that counts."""
        if self.top == 1:
            return super().looks(logits)
        most = logits.shape[-1] if self.top is None else min(self.top, logits.shape[-1])
        values, scales = logits.topk(most, dim=-1)
        return base.each_scale(torch.zeros_like(logits).scatter(-1, scales, values.softmax(dim=-1)))

    @property
    def walk(self) -> base.Walk:
        """By probability where predictions of several scales are mixed."""
        return base.Walk(by_probability=self.top != 1)


class CoarseFirst(base.Pyramid):
    """Training passes each location at one random scale. Inference looks closer where the wide look is uncertain.

    So all passes of a step see different places, and each teaches its whole window: at equal passes this teaches a
    shared network more than every scale of fewer places, as `Mixture` passes them. At inference the pyramid planner
    passes the widest windows everywhere, and narrower ones, with a margin, where the prediction of the wide ones is
    uncertain, as far as the budget goes. No policy network is asked: the wide look, already paid for, is the policy.

    Source: ours; `docs/decisions/0008-coarse-first.md`.
    """

    name: Literal["coarse_first"] = "coarse_first"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """One-hot rows (N, S) at the scales that were drawn."""
        return base.one_hot_argmax(logits)

    def reads(self, scales: int) -> base.Reading:
        """One of the scales, which is drawn, each as often as the others; target and whole window count alike."""
        return base.Reading(tuple(range(scales)), windows=1, drawn=True)

    def logits(self, asked: base.Asked) -> torch.Tensor:
        """The scales that were drawn when the places were read; else noise, which makes each equally likely."""
        return base.seeded_noise(asked) if asked.drawn is None else asked.drawn


class Cascade(base.Pyramid):
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
    context: Entrance = "auto"
    handed: Handed = "both"
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

    def reads(self, scales: int) -> base.Reading:
        """A wide window, and nested ones of every further look."""
        passes = 1 + self.wide_elsewhere + self.closer_per_wide * (scales - 1)
        return base.Reading(tuple(range(scales)), passes, windows=1, nested=(self.closer_per_wide, self.wide_elsewhere))

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """The same share of every look, (N, S)."""
        return base.equal_weights(logits)

    def loss(
        self, model: base.Passing, output: base.LocationOutput, batch: base.Labelled, criterion: base.Criterion
    ) -> base.LossParts:
        """The mean over the looks, however many windows each has, of the loss on their own windows."""
        pattern = batch.scales[0].tolist()
        losses: dict[int, torch.Tensor] = {}
        for scale in sorted(set(pattern)):
            mine = [j for j, other in enumerate(pattern) if other == scale]
            heads = [head[:, mine].flatten(0, 1) for head in (output.own_logits, *output.auxiliary)]
            loss = criterion.of_heads(heads, batch.window_labels[:, mine].flatten(0, 1))
            losses[model.scales.fields_of_view[scale]] = loss.total
        parts = {f"look/{view}": loss.detach() for view, loss in losses.items()}
        return base.LossParts(torch.stack(list(losses.values())).mean(), parts)
