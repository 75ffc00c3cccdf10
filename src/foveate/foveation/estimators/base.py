"""The contract of an estimator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from foveate.config_base import Section
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Draw(NamedTuple):
    """What an estimator may depend on besides the logits, so that it keeps no state of its own.

    Attributes:
        progress: share of the training done, in [0, 1]; annealing follows it.
        generator: source of randomness on the logits' device; None is the global one.
    """

    progress: float = 0.0
    generator: torch.Generator | None = None


class Look(NamedTuple):
    """One pass for each of N places at inference.

    Attributes:
        scale_weights: (N, S) how its input is mixed from the scales; rows sum to one.
        weight: (N,) how much its prediction counts among the place's looks; zero: it is not passed at all.
    """

    scale_weights: Tensor
    weight: Tensor


class Estimator(Section):
    """A strategy from scale logits (N, S) to scale weights (N, S), each row summing to one.

    The weights say how much of each scale's patch enters the network's input, and how much of each scale's aligned
    output counts. Their gradient is what the policy learns from.
    """

    @property
    def learns(self) -> bool:
        """Whether the weights depend on the policy at all."""
        return True

    @property
    def mixes_predictions(self) -> bool:
        """Whether training passes every scale and mixes the predictions, instead of mixing the patches."""
        return False

    @property
    def blends_probabilities(self) -> bool:
        """Whether the looks of a place are averaged as class probabilities, not as logits."""
        return False

    @property
    def own_window_weight(self) -> float:
        """Weight of a loss of every prediction on its own whole window; only where a pass sees a single scale."""
        return 0.0

    @property
    def planner(self) -> str:
        """How inference walks through an image when it is not told: "per_target" or "pyramid"."""
        return "per_target"

    @property
    def budget(self) -> str:
        """Passes that inference may make when it is not told, see `InferenceConfig.budget`."""
        return "all"

    def passes_of_location(self, scales: int) -> int:
        """Patches of a training location that pass through the network, of `scales` in all."""
        return scales if self.mixes_predictions else 1

    def scale_shares(self, scales: int) -> tuple[float, ...] | None:
        """How often each scale is drawn, where a training location is passed at one scale that chance chooses.

        None where it is not: then a location comes with the patches of all `scales_read`.
        """
        return None

    def scales_read(self, scales: int) -> tuple[int, ...]:
        """The scales whose patches training needs, of `scales` in all."""
        return tuple(range(scales))

    @abstractmethod
    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """Weights for training, (N, S), differentiable in the logits where the estimator learns."""

    @abstractmethod
    def inference_weights(self, logits: Tensor) -> Tensor:
        """Weights for inference, (N, S): deterministic; a one-hot row costs reading one patch."""

    def looks(self, logits: Tensor) -> list[Look]:
        """The passes of N places at inference, from their logits (N, S): one, of the inference weights."""
        return [Look(self.inference_weights(logits), torch.ones(len(logits), device=logits.device))]

    def unlearned_logits(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """What stands for the policy's logits where the estimator does not learn: zeros, or drawn from the seed."""
        return torch.zeros(shape)

    def logits_of_image(self, logits: Tensor, seed: int) -> Tensor:
        """What is used of the policy's logits (S, h, w) in a part of an image, which has a seed: the logits."""
        return logits

    def policy_loss(self, logits: Tensor, weights: Tensor, losses: Callable[[], Tensor]) -> Tensor | None:
        """A loss of the policy's own, besides what flows through the weights; None for most.

        Args:
            logits: (N, S).
            weights: (N, S) as this step used them.
            losses: gives the segmentation loss over the target of each location, (N,), without a gradient; asked only
                if needed.
        """
        return None


def each_scale(logits: Tensor, weights: Tensor) -> list[Look]:
    """One look per scale at every place; weights (N, S) say how much each counts."""
    one_hot = torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return [Look(one_hot[s].expand(len(logits), -1), weights[:, s]) for s in range(logits.shape[-1])]


def gumbel_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise whose argmax, added to logits, is a draw from their softmax (the Gumbel-max trick); shape of `like`."""
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))


def one_hot_argmax(values: Tensor) -> Tensor:
    """One-hot rows (N, S) at the largest value, the narrowest of equals; no gradient, dtype kept."""
    return torch.nn.functional.one_hot(values.argmax(dim=-1), values.shape[-1]).to(values.dtype)
