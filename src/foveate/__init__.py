"""Foveate: segment images far larger than a network's input, widely where context helps and closely where detail does.

The whole of it, from a folder with images/ and masks/ to a map of a large image:

    run = foveate.train("folder")                      # or of a configuration; or foveate.load("runs/mine")
    run.predict("huge.tif", "predictions")             # files of any size
    classes, probabilities = run.predict(array)        # or what is in memory

The names below are the public interface. They are imported when first used, so that `import foveate` loads no torch and
nothing else that is slow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveate.package import __version__, door

if TYPE_CHECKING:
    from foveate.api import Run, evaluate, load, predict, push
    from foveate.api.training import compare, init, patches, train
    from foveate.cascade import CascadeSegmenter
    from foveate.data.readers import open_image
    from foveate.errors import FoveateError
    from foveate.foveation.estimators import Cascade, GumbelSoftmax, Mixture
    from foveate.geometry import Size, Window
    from foveate.networks.build import build_network
    from foveate.networks.config import trust_code
    from foveate.patches.scales import ScaleSet
    from foveate.runs.config import RunConfig
    from foveate.segmenter import FoveatedSegmenter

__all__ = [
    "Cascade",
    "CascadeSegmenter",
    "FoveateError",
    "FoveatedSegmenter",
    "GumbelSoftmax",
    "Mixture",
    "Run",
    "RunConfig",
    "ScaleSet",
    "Size",
    "Window",
    "__version__",
    "build_network",
    "compare",
    "evaluate",
    "init",
    "load",
    "open_image",
    "patches",
    "predict",
    "push",
    "train",
    "trust_code",
]

_named, __dir__ = door(__name__, __file__)


def __getattr__(name: str) -> Any:
    # The package of this name is called.
    return import_module("foveate.patches") if name == "patches" else _named(name)
