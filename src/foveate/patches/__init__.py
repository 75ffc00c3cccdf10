"""Patches: how they are read, and how their outputs return to the image.

The package is also a function: `foveate.patches(config)` is a torch data set, see `foveate.api.training.patches`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from foveate.package import door
from foveate.patches.scales import ScaleSet, assembled, crop_central, middle_of, resize_logits

if TYPE_CHECKING:
    from foveate.patches.extraction import Windows, extract_patches, overview_of, overview_window


class _CallablePackage(ModuleType):
    """The one name stands for both: users call it, and the library keeps its modules below it."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("foveate.api.training").patches(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage

__all__ = [
    "ScaleSet",
    "Windows",
    "assembled",
    "crop_central",
    "extract_patches",
    "middle_of",
    "overview_of",
    "overview_window",
    "resize_logits",
]

__getattr__, __dir__ = door(__name__, __file__)
