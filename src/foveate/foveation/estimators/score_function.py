"""ScoreFunction: a sampled patch, and the policy taught by which samples did better than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from foveate.errors import ConfigError
from foveate.foveation.estimators.base import Draw, Estimator, gumbel_noise, one_hot_argmax
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class ScoreFunction(Estimator):
    """Samples a scale; the policy descends E[loss] by (loss - baseline) * grad log p(sample). No sampling at inference.

    The baseline of a location is the mean loss of the others in its batch: it does not depend on the location's own
    sample, so the gradient stays unbiased, and a scale that does better than usual becomes more likely.

    Source: REINFORCE (Williams 1992) with a leave-one-out baseline (Kool et al. 2019); arXiv 2007.15124 names it as the
    alternative to its relaxations.
    """

    name: Literal["score_function"] = "score_function"

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """One-hot samples (N, S) of the probabilities; no gradient flows through them."""
        return one_hot_argmax(logits.detach() + gumbel_noise(logits.detach(), draw.generator))

    def inference_weights(self, logits: Tensor) -> Tensor:
        """One-hot rows (N, S) at the most probable scale."""
        return one_hot_argmax(logits)

    def policy_loss(self, logits: Tensor, weights: Tensor, losses: Callable[[], Tensor]) -> Tensor:
        """The surrogate whose gradient is that of the expected loss; its value means nothing.

        Raises:
            ConfigError: for a batch of one location, which leaves no other for the baseline.
        """
        if len(logits) < 2:
            raise ConfigError("score_function needs at least 2 locations a step on every device, for its baseline")
        loss = losses()
        baseline = (loss.sum() - loss) / (len(loss) - 1)
        log_prob = (logits.log_softmax(dim=-1) * weights).sum(dim=-1)
        return torch.mean((loss - baseline).detach() * log_prob)
