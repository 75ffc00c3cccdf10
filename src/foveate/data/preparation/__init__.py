"""Preparation of the paper's data sets: from the official downloads to manifests. Start at `prepare`."""

from foveate.data.preparation.data_sets import Cityscapes, DeepGlobe, Gleason2019
from foveate.data.preparation.run import Oddity, Summary, prepare
from foveate.data.preparation.scenes import Mask, Recipe, Scene

__all__ = ["Cityscapes", "DeepGlobe", "Gleason2019", "Mask", "Oddity", "Recipe", "Scene", "Summary", "prepare"]
