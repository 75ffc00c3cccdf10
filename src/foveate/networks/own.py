"""`own_network`: a user's network by import path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from foveate.errors import NetworkError


def own_network(path: str, *, classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Import a callable and build a network with it.

    Args:
        path: "package.module:callable"; modules are looked for in the current directory first.
        classes: number of output channels, passed on.
        in_channels: number of input channels, passed on.
        options: further keyword arguments.

    Returns:
        What `callable(classes=classes, in_channels=in_channels, **options)` returned.

    Raises:
        NetworkError: when there is no such module or callable, when it raises, or returns no `torch.nn.Module`.
    """
    with _current_directory_first():
        build = _imported(path)
        if not callable(build):
            raise NetworkError(f"network {path}: it is a {type(build).__name__}, not a function or class to call")
        try:
            network = build(classes=classes, in_channels=in_channels, **options)
        except Exception as error:
            raise NetworkError(
                f"network {path}: calling it with classes={classes}, in_channels={in_channels} and the options "
                f"{dict(options)} failed: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"network {path}: it returned a {type(network).__name__}; return a torch.nn.Module")
    return network


def _imported(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise NetworkError(
                f"network {path}: there is no module {error.name!r} in {Path.cwd()} or installed; start from the "
                f"folder that holds it, or install it"
            ) from None
        raise NetworkError(f"network {path}: importing it failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise NetworkError(f"network {path}: {module_name} has no {attribute!r}; it has {', '.join(names) or 'none'}")
    return getattr(module, attribute)


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """As `python -m` has it; an installed command looks in its own folder instead."""
    before = sys.path.copy()
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before
