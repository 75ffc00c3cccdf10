"""Cascade: look widely everywhere, and closer where that pays, knowing what the wider look saw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.errors import ConfigError
from foveate.foveation.estimators.base import Draw, Estimator, Look, each_scale
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Cascade(Estimator):
    """Every field of view is a look. Each closer look gets what the next wider one saw of its window.

    What is handed on is the wider decoder's map and its class probabilities, cropped by geometry. A training location
    is one wide window and some closer ones anywhere inside it; every look learns from its own window. At inference the
    pyramid planner looks widely everywhere, and closer where the wide look is uncertain, as far as the budget goes.

    Attributes:
        share: use one set of weights for all looks, except for batch normalisation. By default each look has its own
            weights.
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
    share: bool = False
    closer_per_wide: int = Field(default=2, ge=1)
    wide_elsewhere: int = Field(default=0, ge=0)
    drop_context: float = Field(default=0.2, ge=0, le=1)
    context: Literal["auto", "features", "input", "none"] = "auto"
    handed: Literal["both", "map", "probabilities"] = "both"
    gain: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @property
    def learns(self) -> bool:
        """Never: where to look closer follows from what the wide look says."""
        return False

    @property
    def own_window_weight(self) -> float:
        """Every look learns from its own window, and from nothing else."""
        return 1.0

    @property
    def planner(self) -> str:
        """The pyramid: it is what looks level by level."""
        return "pyramid"

    @property
    def budget(self) -> str:
        """As many passes as one fixed field of view."""
        return "fixed"

    @property
    def blends_probabilities(self) -> bool:
        """Where several looks cover a pixel."""
        return True

    @staticmethod
    def check_looks(looks: Sequence[int]) -> None:
        """Refuse looks (level-0 pixels, widest first) that do not nest.

        Raises:
            ConfigError: saying which would.
        """
        if len(looks) < 2:
            raise ConfigError(f"a cascade has two looks or more, widest first, such as [1024, 256]; got {list(looks)}")
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

    def passes_of_location(self, scales: int) -> int:
        """Passes of one training location: a wide one, and the closer ones of every further look."""
        return 1 + self.wide_elsewhere + self.closer_per_wide * (scales - 1)

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The same share of every look, (N, S)."""
        return self.inference_weights(logits)

    def inference_weights(self, logits: Tensor) -> Tensor:
        """The same share of every look, (N, S)."""
        return torch.full_like(logits, 1 / logits.shape[-1])

    def looks(self, logits: Tensor) -> list[Look]:
        """One look of each scale."""
        return each_scale(logits, self.inference_weights(logits))
