"""The estimators of the paper: how a choice of one scale is given a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimator import Draw, Learned, Look, gumbel_noise, one_hot_argmax, one_look
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class SoftExpectation(Learned):
    """The mean of all patches of a location, weighted with their probabilities. Differentiable as it is.

    Every scale is read for every place, in training and in inference; the network runs once.

    Source: "Mean" in arXiv 2007.15124, section 2.2.
    """

    name: Literal["mean"] = "mean"

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the expected patch."""
        return one_look(logits.softmax(dim=-1))


class StraightThroughArgmax(Learned):
    """The patch of the most probable scale. The gradient of the one-hot vector is copied to the probabilities.

    Attributes:
        inverse: divide that gradient by the probability, d/dp = (1/p) d/dw, so that an unlikely scale does not learn
            slowly. False copies the gradient as it is.

    Source: "Mode" in arXiv 2007.15124, section 2.2, whose code has the inverse form.
    """

    name: Literal["mode"] = "mode"
    inverse: bool = True

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """One-hot rows (N, S) that carry the gradient of p, or of log p when `inverse`."""
        carrier = logits.log_softmax(dim=-1) if self.inverse else logits.softmax(dim=-1)
        return one_hot_argmax(logits) + (carrier - carrier.detach())

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the most probable scale."""
        return one_look(one_hot_argmax(logits))


class GumbelSoftmax(Learned):
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

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the most probable scale."""
        return one_look(one_hot_argmax(logits))

    def logits_of_image(self, logits: Tensor, seed: int) -> Tensor:
        """With the noise whose argmax is a draw, where that is asked for."""
        return logits + gumbel_noise(logits, torch.Generator().manual_seed(seed)) if self.sample else logits
