"""GumbelSoftmax: a sampled patch, relaxed so that the sample has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimators.base import Draw, Estimator, gumbel_noise, one_hot_argmax
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class GumbelSoftmax(Estimator):
    """Samples a scale with Gumbel noise; noise-free (the most probable scale) at inference.

    Attributes:
        tau: temperature at the start of training.
        tau_end: temperature at its end; falls geometrically in between. Equal to `tau`: no annealing.
        hard: use the sampled one-hot in the forward pass and the relaxed sample's gradient (straight-through), so
            that training sees one patch per place, as inference does.
        sample: draw the scale of a place at inference too, as the original code does, when images are predicted or
            evaluated; a draw depends on the place only, so that it is the same every time.

    Source: "GSM" in arXiv 2007.15124, section 2.2; Jang et al. 2017, Maddison et al. 2017.
    """

    name: Literal["gumbel"] = "gumbel"
    tau: float = Field(default=1.0, gt=0)
    tau_end: float = Field(default=0.5, gt=0)
    hard: bool = True
    sample: bool = False

    def temperature(self, progress: float) -> float:
        """The temperature after this share of the training."""
        return float(self.tau * (self.tau_end / self.tau) ** min(max(progress, 0.0), 1.0))

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """A relaxed (or, with `hard`, one-hot) sample per row, (N, S)."""
        soft = ((logits + gumbel_noise(logits, draw.generator)) / self.temperature(draw.progress)).softmax(dim=-1)
        return one_hot_argmax(soft) + (soft - soft.detach()) if self.hard else soft

    def inference_weights(self, logits: Tensor) -> Tensor:
        """One-hot rows (N, S) at the most probable scale."""
        return one_hot_argmax(logits)

    def logits_of_image(self, logits: Tensor, seed: int) -> Tensor:
        """With the noise whose argmax is a draw, where that is asked for."""
        return logits + gumbel_noise(logits, torch.Generator().manual_seed(seed)) if self.sample else logits
