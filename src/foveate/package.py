"""The package itself: its version, and what is loaded when it is first used: torch, matplotlib, names of packages."""

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


class _Lazy(ModuleType):
    """A module that is imported by the first look at one of its names."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # looked up once: that took longer than some of what is called
        return value


def door(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`: its names are imported when they are first used.

    Args:
        package: its name; all that it gives is in its `__all__`.
        file: its `__init__.py`, whose first `if TYPE_CHECKING:` says which name is imported from where; one from the
            package itself is a module of it.
    """

    @cache
    def homes() -> dict[str, str]:
        body = ast.parse(Path(file).read_text(encoding="utf-8")).body
        block = next(node for node in body if isinstance(node, ast.If)).body
        imports = [node for node in block if isinstance(node, ast.ImportFrom)]
        return {alias.name: node.module or "" for node in imports for alias in node.names}

    def listed() -> list[str]:
        return sorted(sys.modules[package].__all__)

    def named(name: str) -> Any:
        if name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(listed())}")
        home = homes()[name]
        return import_module(f"{package}.{name}") if home == package else getattr(import_module(home), name)

    return named, listed


if TYPE_CHECKING:
    import matplotlib.figure
    import torch
else:
    matplotlib, torch = _Lazy("matplotlib"), _Lazy("torch")

__all__ = ["__version__", "door", "matplotlib", "torch"]
