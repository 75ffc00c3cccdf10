"""Estimators for comparison only: the paper's baselines and other relaxations, and GLNet."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

from foveate.errors import ConfigError
from foveate.foveation import estimator as base
from foveate.package import torch
from foveate.patches.scales import ScaleSet


class RandomScale(base.Estimator):
    """Draws a field of view uniformly: for each location of each training step, and once per place at inference.

    Source: "Random" in arXiv 2007.15124, section 3.
    """

    name: Literal["random"] = "random"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """One-hot rows (N, S), each scale as likely as any other, whatever the logits."""
        return base.one_hot_argmax(base.gumbel_noise(logits, draw.generator))

    def logits(self, asked: base.Asked) -> torch.Tensor:
        """Noise, so that a place is looked at the same way every time."""
        return base.seeded_noise(asked)

    def looks(self, logits: torch.Tensor) -> list[base.Look]:
        """One pass of the scale with the largest logit, which is noise."""
        return base.one_look(base.one_hot_argmax(logits))


class UniformAverage(base.Estimator):
    """The mean of a location's patches with equal weights: `SoftExpectation` without a policy.

    Source: "Average" in arXiv 2007.15124, section 3.
    """

    name: Literal["average"] = "average"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """Equal weights, (N, S)."""
        return base.equal_weights(logits)

    def looks(self, logits: torch.Tensor) -> list[base.Look]:
        """One pass of the mean."""
        return base.one_look(base.equal_weights(logits))


class SoftExpectation(base.Learned):
    """The mean of all patches of a location, weighted with their probabilities. Differentiable as it is.

    Every scale is read for every place, in training and in inference; the network runs once.

    Source: "Mean" in arXiv 2007.15124, section 2.2.
    """

    name: Literal["mean"] = "mean"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """The probabilities, (N, S)."""
        return logits.softmax(dim=-1)

    def looks(self, logits: torch.Tensor) -> list[base.Look]:
        """One pass of the expected patch."""
        return base.one_look(logits.softmax(dim=-1))


class StraightThroughArgmax(base.Learned):
    """The patch of the most probable scale. The gradient of the one-hot vector is copied to the probabilities.

    It is divided by the probability, d/dp = (1/p) d/dw, so that an unlikely scale does not learn slowly; as
    "mode_plain" it is copied as it is.

    Source: "Mode" in arXiv 2007.15124, section 2.2, whose code has the inverse form.
    """

    name: Literal["mode", "mode_plain"] = "mode"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """One-hot rows (N, S) that carry the gradient of log p, or of p where it is plain."""
        carrier = logits.log_softmax(dim=-1) if self.name == "mode" else logits.softmax(dim=-1)
        return base.one_hot_argmax(logits) + (carrier - carrier.detach())


class ScoreFunction(base.Learned):
    """Samples a scale; the policy descends E[loss] by (loss - baseline) * grad log p(sample). No sampling at inference.

    The baseline of a location is the mean loss of the others in its batch: it does not depend on the location's own
    sample, so the gradient stays unbiased, and a scale that does better than usual becomes more likely.

    Source: REINFORCE (Williams 1992) with a leave-one-out baseline (Kool et al. 2019); arXiv 2007.15124 names it as the
    alternative to its relaxations.
    """

    name: Literal["score_function"] = "score_function"

    def weights(self, logits: torch.Tensor, draw: base.Draw) -> torch.Tensor:
        """One-hot samples (N, S) of the probabilities; no gradient flows through them."""
        return base.one_hot_argmax(logits.detach() + base.gumbel_noise(logits.detach(), draw.generator))

    def loss(
        self, model: base.Passing, output: base.LocationOutput, batch: base.Labelled, criterion: base.Criterion
    ) -> base.LossParts:
        """The segmentation loss, whose value is reported, and `policy_loss`, of which only the gradient counts."""
        loss = super().loss(model, output, batch, criterion)
        each = criterion.of_each(output.logits.detach(), batch.label)
        own = self.policy_loss(output.scale_logits, output.scale_weights, each)
        return loss._replace(total=loss.total + (own - own.detach()))

    def policy_loss(self, logits: torch.Tensor, weights: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """The surrogate whose gradient is that of the expected loss; its value means nothing.

        Args:
            logits: (N, S).
            weights: (N, S) as this step used them.
            losses: (N,) the segmentation loss of each location over its target, without a gradient.

        Raises:
            ConfigError: for a batch of one location, which leaves no other for the baseline.
        """
        if len(logits) < 2:
            raise ConfigError("score_function needs at least 2 locations per step on every device, for its baseline")
        baseline = (losses.sum() - losses) / (len(losses) - 1)
        log_prob = (logits.log_softmax(dim=-1) * weights).sum(dim=-1)
        return torch.mean((losses - baseline).detach() * log_prob)


class GLNet(base.Joint):
    """A global and a local branch that share features both ways: ours after GLNet, for comparison.

    Each branch has a network of its own: the local one sees the narrowest patch of a place, the global one the widest.
    After the encoders, at every stage, each gets the other's features of the same part of the image; the prediction is
    made of the last maps of both decoders. GLNet's global branch sees the whole image, shrunk, and its branches are
    trained one after the other; here it sees the widest patch, and both learn together. A pass goes through both
    networks: it costs two of a fixed field of view.

    Source: Chen et al., "Collaborative Global-Local Networks" (CVPR 2019), arXiv 1905.06368.
    """

    name: Literal["glnet"] = "glnet"

    def reads(self, scales: int) -> base.Reading:
        """The narrowest and the widest, which each pass through a network, and the labels of their windows."""
        return super().reads(scales)._replace(passes=2, windows=1)

    def joined(self, patches: torch.Tensor, scales: ScaleSet) -> torch.Tensor:
        """Side by side, (N, C, P, 2 P)."""
        return torch.cat([patches[:, 0], patches[:, 1]], dim=-1)

    def around(self, network: torch.nn.Module, scales: ScaleSet) -> torch.nn.Module:
        """The two branches, see `Branches`."""
        made: torch.nn.Module = import_module("foveate.paper.networks").Branches(
            network, scales.target / scales.fields_of_view[-1]
        )
        return made

    def loss(
        self, model: base.Passing, output: base.LocationOutput, batch: base.Labelled, criterion: base.Criterion
    ) -> base.LossParts:
        """Of both and of the local branch over the target, and of the global branch over its window."""
        local, wide = output.auxiliary
        loss = criterion.of_heads((output.logits, local), batch.label)
        own = criterion.of_heads((wide,), batch.window_labels[:, -1]).total
        return base.LossParts(loss.total + own, loss.parts | {"own_window": own.detach()})
