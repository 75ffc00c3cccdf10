"""GumbelSoftmax: a sampled patch, relaxed so that the sample has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimators.base import Draw, Estimator, gumbel_noise, one_hot_argmax
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class GumbelSoftmax(Estimator):
    """Samples a scale with Gumbel noise. Inference takes the most probable scale, without noise.

    Attributes:
        tau: temperature at the start of training.
        tau_end: temperature at the end; it falls geometrically. If it equals `tau`, there is no annealing.
        hard: use the sampled one-hot vector in the forward pass and the gradient of the relaxed sample
            (straight-through). Training then sees one patch per place, as inference does.
        sample: also draw the scale of a place when images are predicted or evaluated, as the original code does. The
            draw depends only on the place, so it is the same every time.

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
