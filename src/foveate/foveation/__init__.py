"""Foveation: the estimators that turn a policy's logits into fields of view."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.foveation.config import FoveationConfig, earlier_name, fixed_names, with_estimator
    from foveate.foveation.estimator import Draw, Estimator, Learned, Look, gumbel_noise, one_hot_argmax, one_look
    from foveate.foveation.estimators import Cascade, CoarseFirst, FixedScale, GumbelSoftmax, Mixture
    from foveate.paper import ScoreFunction, SoftExpectation, StraightThroughArgmax, UniformAverage

__all__ = [
    "Cascade",
    "CoarseFirst",
    "Draw",
    "Estimator",
    "FixedScale",
    "FoveationConfig",
    "GumbelSoftmax",
    "Learned",
    "Look",
    "Mixture",
    "ScoreFunction",
    "SoftExpectation",
    "StraightThroughArgmax",
    "UniformAverage",
    "earlier_name",
    "fixed_names",
    "gumbel_noise",
    "one_hot_argmax",
    "one_look",
    "with_estimator",
]

__getattr__, __dir__ = door(__name__, __file__)
