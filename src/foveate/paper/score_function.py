"""ScoreFunction: a sampled patch, and the policy taught by which samples did better than others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from foveate.errors import ConfigError
from foveate.foveation.estimator import (
    Criterion,
    Draw,
    Labelled,
    Learned,
    LocationOutput,
    Look,
    LossParts,
    Passing,
    gumbel_noise,
    one_hot_argmax,
    one_look,
)
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class ScoreFunction(Learned):
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

    def looks(self, logits: Tensor) -> list[Look]:
        """One pass of the most probable scale."""
        return one_look(one_hot_argmax(logits))

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """The segmentation loss, whose value is reported, and `policy_loss`, of which only the gradient counts."""
        loss = super().loss(model, output, batch, criterion)
        each = criterion.of_each(output.logits.detach(), batch.label)
        own = self.policy_loss(output.scale_logits, output.scale_weights, each)
        return loss._replace(total=loss.total + (own - own.detach()))

    def policy_loss(self, logits: Tensor, weights: Tensor, losses: Tensor) -> Tensor:
        """The surrogate whose gradient is that of the expected loss; its value means nothing.

        Args:
            logits: (N, S).
            weights: (N, S) as this step used them.
            losses: (N,) the segmentation loss of each location over its target, without a gradient.

        Raises:
            ConfigError: for a batch of one location, which leaves no other for the baseline.
        """
        if len(logits) < 2:
            raise ConfigError("score_function needs at least 2 locations a step on every device, for its baseline")
        baseline = (losses.sum() - losses) / (len(losses) - 1)
        log_prob = (logits.log_softmax(dim=-1) * weights).sum(dim=-1)
        return torch.mean((losses - baseline).detach() * log_prob)
