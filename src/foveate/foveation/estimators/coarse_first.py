"""CoarseFirst: one network for every scale, whose own uncertainty about a wide look says where to look closer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimators.base import Draw, Estimator, Look, each_scale, gumbel_noise, one_hot_argmax
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class CoarseFirst(Estimator):
    """Training passes each location at one random scale. Inference looks closer where the wide look is uncertain.

    So all passes of a step see different places, and each teaches its whole window: at equal passes this teaches a
    shared network more than every scale of fewer places, as `Mixture` passes them. At inference the pyramid planner
    passes the widest windows everywhere, and narrower ones, with a margin, where the prediction of the wide ones is
    uncertain, as far as the budget goes. No policy network is asked: the wide look, already paid for, is the policy.

    Attributes:
        narrowest: share of the training locations at the narrowest scale; the others divide the rest equally. By
            default all scales have equal shares.
        own_window: weight of the loss on the patch's whole window, in addition to the loss on the target.

    Source: ours; `docs/decisions/0008-coarse-first.md`.
    """

    name: Literal["coarse_first"] = "coarse_first"
    narrowest: float | None = Field(default=None, gt=0, lt=1)
    own_window: float = Field(default=1.0, gt=0)

    @property
    def learns(self) -> bool:
        """Never: what is decided follows from the network's own prediction."""
        return False

    @property
    def own_window_weight(self) -> float:
        """Weight of the loss on the patch's whole window."""
        return self.own_window

    @property
    def planner(self) -> str:
        """The pyramid: it is what looks coarsely first."""
        return "pyramid"

    @property
    def budget(self) -> str:
        """As many passes as one fixed field of view."""
        return "fixed"

    @property
    def blends_probabilities(self) -> bool:
        """Where a planner passes every scale of a target."""
        return True

    def scale_shares(self, scales: int) -> tuple[float, ...]:
        """How often each scale is drawn in training."""
        if scales == 1 or self.narrowest is None:
            return (1 / scales,) * scales
        return (self.narrowest, *[(1 - self.narrowest) / (scales - 1)] * (scales - 1))

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """One-hot rows (N, S) at the scales that were drawn."""
        return one_hot_argmax(logits)

    def inference_weights(self, logits: Tensor) -> Tensor:
        """The same share of every scale, (N, S)."""
        return torch.full_like(logits, 1 / logits.shape[-1])

    def looks(self, logits: Tensor) -> list[Look]:
        """One look of each scale, which count alike."""
        return each_scale(logits, self.inference_weights(logits))

    def unlearned_logits(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Noise of this shape: where no location reader draws the scale, each is equally likely."""
        return gumbel_noise(torch.empty(shape), torch.Generator().manual_seed(seed))
