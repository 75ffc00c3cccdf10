"""Foveate: segment images far larger than a network's input, with a learned field of view for every place.

The names below are the public interface. They are imported when first used, so that the command line need not load
torch to print its help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveate.version import __version__

if TYPE_CHECKING:
    from foveate.cascade import CascadeSegmenter
    from foveate.data.readers import open_image
    from foveate.errors import FoveateError
    from foveate.foveation.estimators import (
        Cascade,
        FixedScale,
        GumbelSoftmax,
        Mixture,
        SoftExpectation,
        StraightThroughArgmax,
    )
    from foveate.geometry import Size, Window
    from foveate.networks.build import build_network
    from foveate.networks.own import trust_code
    from foveate.patches.scales import ScaleSet
    from foveate.reporting.prediction_result import predict
    from foveate.runs.folder import load_run
    from foveate.segmenter import FoveatedSegmenter

__all__ = [
    "Cascade",
    "CascadeSegmenter",
    "FixedScale",
    "FoveateError",
    "FoveatedSegmenter",
    "GumbelSoftmax",
    "Mixture",
    "ScaleSet",
    "Size",
    "SoftExpectation",
    "StraightThroughArgmax",
    "Window",
    "__version__",
    "build_network",
    "load_run",
    "open_image",
    "predict",
    "trust_code",
]

_HOMES = {
    "Cascade": "foveate.foveation.estimators",
    "CascadeSegmenter": "foveate.cascade",
    "FixedScale": "foveate.foveation.estimators",
    "FoveateError": "foveate.errors",
    "FoveatedSegmenter": "foveate.segmenter",
    "GumbelSoftmax": "foveate.foveation.estimators",
    "Mixture": "foveate.foveation.estimators",
    "ScaleSet": "foveate.patches.scales",
    "Size": "foveate.geometry",
    "SoftExpectation": "foveate.foveation.estimators",
    "StraightThroughArgmax": "foveate.foveation.estimators",
    "Window": "foveate.geometry",
    "build_network": "foveate.networks.build",
    "load_run": "foveate.runs.folder",
    "open_image": "foveate.data.readers",
    "predict": "foveate.reporting.prediction_result",
    "trust_code": "foveate.networks.own",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foveate' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
