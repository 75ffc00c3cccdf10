"""Estimators: how scale logits become the weights with which a location's patches are used."""

from foveate.foveation.estimators.base import Draw, Estimator, Look
from foveate.foveation.estimators.cascade import Cascade
from foveate.foveation.estimators.coarse_first import CoarseFirst
from foveate.foveation.estimators.ensemble import Ensemble
from foveate.foveation.estimators.fixed_scale import FixedScale
from foveate.foveation.estimators.gumbel_softmax import GumbelSoftmax
from foveate.foveation.estimators.mixture import Mixture
from foveate.foveation.estimators.random_scale import RandomScale
from foveate.foveation.estimators.score_function import ScoreFunction
from foveate.foveation.estimators.soft_expectation import SoftExpectation
from foveate.foveation.estimators.straight_through_argmax import StraightThroughArgmax
from foveate.foveation.estimators.uniform_average import UniformAverage

__all__ = [
    "Cascade",
    "CoarseFirst",
    "Draw",
    "Ensemble",
    "Estimator",
    "FixedScale",
    "GumbelSoftmax",
    "Look",
    "Mixture",
    "RandomScale",
    "ScoreFunction",
    "SoftExpectation",
    "StraightThroughArgmax",
    "UniformAverage",
]
