"""Patches: at which fields of view they are cut, how they are read, and how their outputs return to the image.

The package is also a function: `foveate.patches(config)` is a torch data set, see `foveate.api.training.patches`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """The one name stands for both: users call it, and the library keeps its modules below it."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("foveate.api.training").patches(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
