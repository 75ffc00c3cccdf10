"""Foveate: segment images far larger than a network's input, widely where context helps and closely where detail does.

The whole of it, from a folder with images/ and masks/ to a map of a large image:

    run = foveate.train("folder")                      # or of a configuration; or foveate.load("runs/mine")
    run.predict("huge.tif", "predictions")             # files of any size
    classes, probabilities = run.predict(array)        # or what is in memory

The names below are the public interface. They are imported when first used, so that `import foveate` loads no torch and
nothing else that is slow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveate.version import __version__

if TYPE_CHECKING:
    from foveate.api.runs import Run, evaluate, load, predict, push
    from foveate.api.training import compare, init, patches, train
    from foveate.cascade import CascadeSegmenter
    from foveate.data.readers import open_image
    from foveate.errors import FoveateError
    from foveate.foveation.estimators import Cascade, GumbelSoftmax, Mixture
    from foveate.geometry import Size, Window
    from foveate.networks.build import build_network
    from foveate.networks.own import trust_code
    from foveate.patches.scales import ScaleSet
    from foveate.runs.config import RunConfig
    from foveate.segmenter import FoveatedSegmenter

_HOMES = {
    "Cascade": "foveate.foveation.estimators",
    "CascadeSegmenter": "foveate.cascade",
    "FoveateError": "foveate.errors",
    "FoveatedSegmenter": "foveate.segmenter",
    "GumbelSoftmax": "foveate.foveation.estimators",
    "Mixture": "foveate.foveation.estimators",
    "Run": "foveate.api.runs",
    "RunConfig": "foveate.runs.config",
    "ScaleSet": "foveate.patches.scales",
    "Size": "foveate.geometry",
    "Window": "foveate.geometry",
    "build_network": "foveate.networks.build",
    "compare": "foveate.api.training",
    "evaluate": "foveate.api.runs",
    "init": "foveate.api.training",
    "load": "foveate.api.runs",
    "open_image": "foveate.data.readers",
    "patches": "foveate.api.training",
    "predict": "foveate.api.runs",
    "push": "foveate.api.runs",
    "train": "foveate.api.training",
    "trust_code": "foveate.networks.own",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foveate' has no attribute {name!r}; it has {', '.join(__all__)}")
    if name == "patches":  # the package of this name is called
        return import_module("foveate.patches")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
