"""Preparation of the paper's data sets: from the official downloads to manifests. Start at `prepare`."""

from foveate.data.preparation.cityscapes import Cityscapes
from foveate.data.preparation.deepglobe import DeepGlobe
from foveate.data.preparation.gleason2019 import Gleason2019
from foveate.data.preparation.run import prepare
from foveate.data.preparation.scene import Mask, Recipe, Scene
from foveate.data.preparation.summary import Oddity, Summary

__all__ = ["Cityscapes", "DeepGlobe", "Gleason2019", "Mask", "Oddity", "Recipe", "Scene", "Summary", "prepare"]
