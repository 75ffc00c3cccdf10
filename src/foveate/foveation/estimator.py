"""The contract of an estimator: `weights` and `looks` are its own; the rest does the usual thing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from foveate.config_base import Section
from foveate.package import torch
from foveate.patches.scales import ScaleSet


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

    scale_weights: torch.Tensor
    weight: torch.Tensor


class Asked(NamedTuple):
    """Places that need logits, and where these may come from.

    Attributes:
        shape: of the logits: (N, S) of places, or (..., S, h, w) of an image's cells.
        policy: asks the policy network, which costs a pass of it.
        seed: of what is drawn instead; the same place has the same seed every time.
        drawn: (N, S) one-hot, the scale at which each place was read in training.
    """

    shape: tuple[int, ...]
    policy: Callable[[], torch.Tensor]
    seed: int = 0
    drawn: torch.Tensor | None = None


class Reading(NamedTuple):
    """What is read of a location for training, and what that costs.

    Attributes:
        scales: indices of the scales that are ever passed, ascending.
        passes: patches of a location that pass through the network.
        windows: weight of the loss of each pass on its own whole window; its labels are read unless that is 0.
        drawn: whether only one of the scales is read of each location, drawn by chance; else all of them are.
        nested: of a cascade, closer windows of each look inside a wide one, and wide windows elsewhere.
    """

    scales: tuple[int, ...]
    passes: int = 1
    windows: float = 0.0
    drawn: bool = False
    nested: tuple[int, int] | None = None


class Walk(NamedTuple):
    """How inference goes through an image where the configuration leaves it open.

    Attributes:
        planner: "per_target" or "pyramid".
        budget: passes that it may make, see `InferenceConfig.budget`.
        by_probability: whether the looks of a place are averaged as class probabilities, not as logits.
    """

    planner: str = "per_target"
    budget: str = "all"
    by_probability: bool = False


class LossParts(NamedTuple):
    """A loss and what it consists of.

    Attributes:
        total: scalar, the weighted sum.
        parts: each loss in use before weighting, scalars without a gradient.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


class LocationOutput(NamedTuple):
    """The result for N locations of S scales and C classes.

    Attributes:
        logits: (N, C, T, T) over each location's target.
        scale_logits: (N, S) the policy's logits.
        scale_weights: (N, S) how much of each scale was used.
        own_logits: (N, S', C, P', P') the prediction of each pass over its own window, where its labels are read in
            training, else empty, (N, 0).
        auxiliary: (N, C, T, T) of each further head that a network with deep supervision has in training.
    """

    logits: torch.Tensor
    scale_logits: torch.Tensor
    scale_weights: torch.Tensor
    own_logits: torch.Tensor
    auxiliary: tuple[torch.Tensor, ...] = ()


class Passing(Protocol):
    """The segmenter, as an estimator uses it."""

    scales: ScaleSet

    def pass_mixed(self, scale_logits: torch.Tensor, patches: torch.Tensor, weights: torch.Tensor) -> LocationOutput:
        """One pass for each location, of the weighted sum of its patches."""

    def pass_each(self, scale_logits: torch.Tensor, patches: torch.Tensor, weights: torch.Tensor) -> LocationOutput:
        """One pass for each location and scale; the predictions are mixed by the softmax of the logits."""


class Labelled(Protocol):
    """The labels of N locations, see `foveate.data.locations.LocationBatch`."""

    @property
    def label(self) -> torch.Tensor:
        """(N, T, T) of the targets."""

    @property
    def window_labels(self) -> torch.Tensor:
        """(N, S', P, P) of the patches' windows."""

    @property
    def scales(self) -> torch.Tensor:
        """(N, S') scale of each patch."""


class Criterion(Protocol):
    """The segmentation loss, see `foveate.training.losses.SegmentationLoss`."""

    def of_heads(self, heads: Sequence[torch.Tensor], label: torch.Tensor) -> LossParts:
        """Of logits (N, C, h, w), resampled to labels (N, H, W) where they differ; further heads are auxiliary."""

    def of_each(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(N,) of each location alone, without a gradient."""


class Estimator(Section):
    """Decides how wide each place is looked at, in training and at inference.

    A new one says `weights` and `looks`; `Learned` has the usual `looks`. What else it may do differently has a method
    that does the usual thing: what is read (`reads`), where logits come from (`logits`), the pass of a training step
    (`train`), what is learned from it (`loss`), and how inference goes through an image (`walk`). Nothing but these
    methods is asked by others.
    """

    @abstractmethod
    def weights(self, logits: torch.Tensor, draw: Draw) -> torch.Tensor:
        """How the patches of a place are mixed in training, (N, S), from its logits (N, S); each row sums to one.

        They say how much of each scale's patch enters the network's input, and how much of each scale's aligned output
        counts. Where they are differentiable, their gradient is what the policy learns from.
        """

    @abstractmethod
    def looks(self, logits: torch.Tensor) -> list[Look]:
        """The passes of N places at inference, from their logits (N, S): deterministic.

        See `one_look`, `each_scale`. A one-hot row costs reading one patch.
        """

    def reads(self, scales: int) -> Reading:
        """What is read of a location, of `scales` in all: every scale, for one pass of their mixture."""
        return Reading(tuple(range(scales)))

    def logits(self, asked: Asked) -> torch.Tensor:
        """What `weights` and `looks` get: zeros where nothing is learned, see `Learned`."""
        return torch.zeros(asked.shape)

    def train(self, model: Passing, logits: torch.Tensor, patches: torch.Tensor, draw: Draw) -> LocationOutput:
        """The pass of a training step.

        Args:
            model: passes patches through its network.
            logits: (N, S).
            patches: (N, S', C, P, P) of what was read.
            draw: progress and randomness.
        """
        return model.pass_mixed(logits, patches, self.weights(logits, draw))

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """What a training step learns from: the loss over the targets, and over whole windows as `reads` weighs it."""
        loss = criterion.of_heads((output.logits, *output.auxiliary), batch.label)
        weight = self.reads(len(model.scales)).windows
        if not weight:
            return loss
        own = criterion.of_heads((output.own_logits.flatten(0, 1),), batch.window_labels.flatten(0, 1)).total
        return LossParts(loss.total + weight * own, loss.parts | {"own_window": own.detach()})

    @property
    def walk(self) -> Walk:
        """How inference goes through an image: target by target."""
        return Walk()


class Learned(Estimator):
    """An estimator whose logits are the policy network's, which learns with the segmentation network."""

    def logits(self, asked: Asked) -> torch.Tensor:
        """The policy's."""
        return asked.policy()

    def looks(self, logits: torch.Tensor) -> list[Look]:
        """One pass of the most probable scale."""
        return one_look(one_hot_argmax(logits))


class Joint(Estimator):
    """An estimator whose one pass sees the narrowest and the widest patch of a place together, and predicts its target.

    A method that this is for comes with a network around the given one, which takes what `joined` makes.
    """

    def reads(self, scales: int) -> Reading:
        """The narrowest and the widest."""
        return Reading((0, scales - 1))

    def weights(self, logits: torch.Tensor, draw: Draw) -> torch.Tensor:
        """A half of each of the two, (N, S)."""
        weights = torch.zeros_like(logits, requires_grad=False)
        weights[:, [0, -1]] = 0.5
        return weights

    def looks(self, logits: torch.Tensor) -> list[Look]:
        """One pass of both."""
        return one_look(self.weights(logits, Draw()))

    @abstractmethod
    def joined(self, patches: torch.Tensor, scales: ScaleSet) -> torch.Tensor:
        """What the network gets (N, C, h, w) of the narrowest and the widest patch (N, 2, C, P, P)."""

    @abstractmethod
    def around(self, network: torch.nn.Module, scales: ScaleSet) -> torch.nn.Module:
        """The module that takes this, and returns logits (N, classes, h', w') over the target.

        Raises:
            NetworkError: when the network does not fit.
        """


class Pyramid(Estimator):
    """An estimator that looks widely everywhere, and closer where the wide look is unsure, as the budget allows.

    There is no policy: where to look closer follows from the prediction itself.
    """

    def looks(self, logits: torch.Tensor) -> list[Look]:
        """One look of each scale, which count alike."""
        return each_scale(equal_weights(logits))

    @property
    def walk(self) -> Walk:
        """Level by level, with as many passes as one fixed field of view makes."""
        return Walk("pyramid", "fixed", by_probability=True)


def one_look(weights: torch.Tensor) -> list[Look]:
    """One pass at every place, of the mixture that the weights (N, S) say."""
    return [Look(weights, torch.ones(len(weights), device=weights.device))]


def each_scale(weights: torch.Tensor) -> list[Look]:
    """One pass of each scale at every place; weights (N, S) say how much each counts."""
    one_hot = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return [Look(one_hot[s].expand(len(weights), -1), weights[:, s]) for s in range(weights.shape[-1])]


def shares_of(looks: Sequence[Look]) -> torch.Tensor:
    """How much each scale counts at N places, (N, S), whose looks these are."""
    return torch.stack([look.scale_weights * look.weight[:, None] for look in looks]).sum(dim=0)


def equal_weights(logits: torch.Tensor) -> torch.Tensor:
    """The same weight for every scale, in the shape (N, S) of the logits."""
    return torch.full_like(logits, 1 / logits.shape[-1], requires_grad=False)


def gumbel_noise(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Noise whose argmax, added to logits, is a draw from their softmax (the Gumbel-max trick); shape of `like`."""
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))


def seeded_noise(asked: Asked) -> torch.Tensor:
    """Gumbel noise in the place of logits, which depends on the seed only: a place is the same every time."""
    return gumbel_noise(torch.empty(asked.shape), torch.Generator().manual_seed(asked.seed))


def one_hot_argmax(values: torch.Tensor) -> torch.Tensor:
    """One-hot rows (N, S) at the largest value, the narrowest of equals; no gradient, dtype kept."""
    return torch.nn.functional.one_hot(values.argmax(dim=-1), values.shape[-1]).to(values.dtype)
