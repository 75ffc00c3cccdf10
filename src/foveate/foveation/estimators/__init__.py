"""Estimators: how wide each place is looked at. A new one is a file like these, and its name in the registry below."""

from foveate.foveation.estimator import (
    Asked,
    Draw,
    Estimator,
    Learned,
    Look,
    Pyramid,
    Reading,
    Walk,
    each_scale,
    gumbel_noise,
    one_hot_argmax,
    one_look,
)
from foveate.foveation.estimators.fixed import Ensemble, FixedScale
from foveate.foveation.estimators.learned import GumbelSoftmax, Mixture
from foveate.foveation.estimators.pyramid import Cascade, CoarseFirst
from foveate.paper.estimators import (
    RandomScale,
    ScoreFunction,
    SoftExpectation,
    StraightThroughArgmax,
    UniformAverage,
)

# The registry: what `foveation.estimator` may be in a configuration, by its `name`.
ESTIMATORS: tuple[type[Estimator], ...] = (
    FixedScale,
    RandomScale,
    UniformAverage,
    Ensemble,
    SoftExpectation,
    StraightThroughArgmax,
    GumbelSoftmax,
    ScoreFunction,
    Mixture,
    CoarseFirst,
    Cascade,
)

__all__ = [
    "ESTIMATORS",
    "Asked",
    "Cascade",
    "CoarseFirst",
    "Draw",
    "Ensemble",
    "Estimator",
    "FixedScale",
    "GumbelSoftmax",
    "Learned",
    "Look",
    "Mixture",
    "Pyramid",
    "RandomScale",
    "Reading",
    "ScoreFunction",
    "SoftExpectation",
    "StraightThroughArgmax",
    "UniformAverage",
    "Walk",
    "each_scale",
    "gumbel_noise",
    "one_hot_argmax",
    "one_look",
]
