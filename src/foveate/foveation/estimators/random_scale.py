"""RandomScale: the baseline that looks equally often at every width, by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from foveate.foveation.estimators.base import Draw, Estimator, gumbel_noise, one_hot_argmax
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class RandomScale(Estimator):
    """Draws a field of view uniformly: for each location of each training step, and once per place at inference.

    Source: "Random" in arXiv 2007.15124, section 3.
    """

    name: Literal["random"] = "random"

    @property
    def learns(self) -> bool:
        """Never: chance decides."""
        return False

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """One-hot rows (N, S), each scale as likely as any other, whatever the logits."""
        return one_hot_argmax(gumbel_noise(logits, draw.generator))

    def inference_weights(self, logits: Tensor) -> Tensor:
        """One-hot rows (N, S) at the largest logit; `unlearned_logits` are noise."""
        return one_hot_argmax(logits)

    def unlearned_logits(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Noise of this shape that depends on the seed only, so that a place is looked at the same way every time."""
        return gumbel_noise(torch.empty(shape), torch.Generator().manual_seed(seed))
