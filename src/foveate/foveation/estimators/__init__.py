"""Estimators: how scale logits become the weights with which a location's patches are used."""

from foveate.foveation.estimators.base import Draw, Estimator
from foveate.foveation.estimators.fixed_scale import FixedScale
from foveate.foveation.estimators.gumbel_softmax import GumbelSoftmax
from foveate.foveation.estimators.mixture import Mixture
from foveate.foveation.estimators.soft_expectation import SoftExpectation
from foveate.foveation.estimators.straight_through_argmax import StraightThroughArgmax

__all__ = ["Draw", "Estimator", "FixedScale", "GumbelSoftmax", "Mixture", "SoftExpectation", "StraightThroughArgmax"]
