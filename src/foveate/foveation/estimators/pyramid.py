"""The estimators that look widely everywhere and closer where that pays: CoarseFirst, and Cascade with context."""

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
    Labelled,
    LocationOutput,
    LossParts,
    Passing,
    Pyramid,
    Reading,
    equal_weights,
    one_hot_argmax,
    seeded_noise,
    with_own_windows,
)
from foveate.package import torch

if TYPE_CHECKING:
    from torch import Tensor


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
        context: where the context enters: the "features" of an encoder, the "input" of any network, or "none"; "auto"
            takes features if the network has them.
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
    context: Literal["auto", "features", "input", "none"] = "auto"
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
