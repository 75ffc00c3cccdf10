"""Which network: by name, or a user's own by import path, and which code may be imported for one (`trust_code`).

A configuration may come from a stranger, and a name in it must not be enough to run code.
"""

from __future__ import annotations  # one of them names torch, which is loaded when it is first used

import functools
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from foveate.config_base import Section, Weights
from foveate.errors import ConfigError, NetworkError
from foveate.package import torch

_OF_NAMED = ("encoder", "weights")
_NO_OPTIONS = {"architecture", *_OF_NAMED, "classes", "in_channels"}


_EITHER = (
    "a network is {architecture: NAME, encoder: NAME}, or the import path of your own, package.module:callable, as its "
    "architecture"
)


class NetworkConfig(Section):
    """A network by name, or your own by import path. A plain string is the import path of your own.

    Attributes:
        architecture: an architecture of segmentation_models_pytorch, such as "unet", "fpn", "upernet" or "segformer",
            or one of the original's decoders "c1", "c1_deepsup", "ppm" and "ppm_deepsup"; or your own network,
            "package.module:callable", without encoder and weights. It is called with `classes`, `in_channels` and the
            options, and must return a module that returns logits.
        encoder: an encoder of segmentation_models_pytorch or timm, such as "resnet34" or "tf_efficientnet_lite0", or
            one of the original's, such as "resnet50dilated", "hrnetv2" or "u_net". `foveate networks` lists them.
        weights: "imagenet" (downloaded by the library), the path of a checkpoint of the encoder (.pth, .pt or
            .safetensors), or "none" for random weights.
        options: further keyword arguments of the architecture (of the encoder for c1 and ppm).
    """

    architecture: str = "fpn"
    encoder: str = "tf_efficientnet_lite0"
    weights: Weights = "imagenet"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_string(cls, values: Any) -> Any:
        """A string alone; and earlier versions had the key `factory` for one's own network."""
        values = {"factory": values} if isinstance(values, str) else values
        if not isinstance(values, dict) or "factory" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "factory"}
        if values["factory"] is None:
            return rest
        if ":" not in str(values["factory"]) or "architecture" in rest:
            raise ValueError(_EITHER)
        return {**rest, "architecture": values["factory"]}

    @field_validator("architecture")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if ":" in value and not _NAME.fullmatch(value):
            raise ValueError(_EITHER)
        return value

    @field_validator("options")
    @classmethod
    def _check_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(_NO_OPTIONS & set(value))
        if taken:
            raise ValueError(f"{', '.join(taken)} cannot be options; they are set elsewhere, in network and data")
        return value

    @model_validator(mode="after")
    def _check_either(self) -> Self:
        given = [name for name in _OF_NAMED if name in self.model_fields_set]
        if self.factory is not None and given:
            raise ValueError(f"{self.factory} builds the whole network; remove {' and '.join(given)}")
        return self

    @property
    def factory(self) -> str | None:
        """The import path of one's own network; None for one by name."""
        return self.architecture if ":" in self.architecture else None

    @model_serializer(mode="wrap")
    def _only_what_counts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No encoder beside one's own network, so that the tree is accepted again."""
        left_out = _OF_NAMED if self.factory is not None else ()
        return {key: value for key, value in dump(self).items() if key not in left_out}


VARIABLE = "FOVEATE_CODE"
_SEPARATOR = ";"  # a name holds the colon that separates paths elsewhere
_NAME = re.compile(r"\w+(\.\w+)*:\w+")
_log = logging.getLogger(__name__)


def trust_code(*what: Path | str) -> None:
    """Allow networks of one's own from folders, or installed ones by name, in this process and those it starts.

    It is kept in the environment variable FOVEATE_CODE, separated by semicolons; folders in PYTHONPATH are allowed too.

    Args:
        what: a folder of modules, of which every function and class of their own is allowed; or
            "package.module:callable" of what is installed.

    Raises:
        ConfigError: when it is neither.
    """
    texts = [one if _NAME.fullmatch(one) else str(Path(one).absolute()) for one in map(str, what)]
    for text in texts:
        if not _NAME.fullmatch(text) and not Path(text).is_dir():
            raise ConfigError(
                f"--code {text} is not a folder; give the folder of your module, or an installed "
                "package.module:callable"
            )
    os.environ[VARIABLE] = _SEPARATOR.join(dict.fromkeys([*_trusted(), *texts]))


def own_network(path: str, *, classes: int, in_channels: int, options: Mapping[str, Any]) -> torch.nn.Module:
    """Import a callable and build a network with it; where it comes from is logged.

    Args:
        path: "package.module:callable", see `trust_code` for where it may be.
        classes: number of output channels, passed on.
        in_channels: number of input channels, passed on.
        options: further keyword arguments.

    Returns:
        What `callable(classes=classes, in_channels=in_channels, **options)` returned.

    Raises:
        NetworkError: when it is not allowed, there is no such module or callable, it raises, or it returns no
            `torch.nn.Module`.
    """
    with _folders_first():
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
    if not isinstance(network, torch.nn.Module):
        raise NetworkError(f"network {path}: it returned a {type(network).__name__}; return a torch.nn.Module")
    return network


def check_code(path: str, run: Path) -> None:
    """Refuse a network that a run names, before anything else of the run is used; nothing is imported.

    Raises:
        NetworkError: when it is not allowed, or its code lies in the folder of the run, whoever allowed it.
    """
    top = path.partition(":")[0].partition(".")[0]
    for place in _places(_spec(top, _folders()) or PathFinder.find_spec(top)):
        if place.is_relative_to(run.resolve()):
            raise NetworkError(
                f"network {path}: its code {place} lies in the folder of the run, and nothing is imported from there. "
                "Read it, move it elsewhere, and name that folder with --code"
            )
    _folder_of(path)


def _imported(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    folder = _folder_of(path)
    _say(path, folder)
    try:
        module = import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise NetworkError(
                f"network {path}: there is no module {error.name!r} in {folder or 'what is installed'}"
            ) from None
        raise NetworkError(f"network {path}: importing it failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise NetworkError(f"network {path}: {module_name} has no {attribute!r}; it has {', '.join(names) or 'none'}")
    value = getattr(module, attribute)
    _check_home(path, value, folder)
    return value


def _folder_of(path: str) -> Path | None:
    """The allowed folder that holds a network's module; None for an installed one that is allowed by name.

    Raises:
        NetworkError: when it is not allowed.
    """
    top = path.partition(":")[0].partition(".")[0]
    folders = _folders()
    found = _spec(top, folders)
    if found is not None and path not in _trusted():
        _check_loaded(path, top, found)
        return next(folder for folder in folders if _places(found)[0].is_relative_to(folder))
    if path in _trusted():
        return None
    searched = f"; there is no module {top!r} in {', '.join(map(str, folders))}" if folders else ""
    raise NetworkError(
        f"network {path} is your own code, and a name in a configuration is not enough to run code{searched}. Allow "
        f"the folder of its module {top!r} with --code FOLDER (start in the folder that holds it: --code .), or an "
        f"installed one by its name, --code {path}; in Python with foveate.trust_code"
    )


def _check_loaded(path: str, top: str, found: ModuleSpec) -> None:
    """Refuse a module of the same name as one that is loaded from elsewhere: that one would be used instead."""
    loaded = getattr(sys.modules.get(top), "__spec__", None)
    if top in sys.modules and (loaded is None or _places(loaded) != _places(found)):
        raise NetworkError(f"network {path}: another module {top!r} is already loaded; rename yours")


def _check_home(path: str, value: Any, folder: Path | None) -> None:
    """Refuse what a module only imported from elsewhere, and torch.hub always, which runs code of any folder."""
    inner = value.func if isinstance(value, functools.partial) else value
    home = str(getattr(inner, "__module__", ""))
    if home.partition(":")[0].startswith("torch.hub") or path.startswith("torch.hub:"):
        raise NetworkError(
            f"network {path}: torch.hub runs code from any folder or server; import what you need instead"
        )
    top = path.partition(":")[0].partition(".")[0]
    if folder is not None and callable(value) and home.partition(".")[0] != top:
        raise NetworkError(
            f"network {path}: it is defined in {home}; name a function or class that {top} defines itself"
        )


@functools.cache  # once in each process
def _say(path: str, folder: Path | None) -> None:
    _log.warning("network %s is imported from %s", path, folder or "what is installed")


def _trusted() -> list[str]:
    return [one for one in os.environ.get(VARIABLE, "").split(_SEPARATOR) if one]


def _folders() -> list[Path]:
    """Folders whose modules are allowed, those of --code first."""
    named = [one for one in _trusted() if not _NAME.fullmatch(one)]
    named += [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    return [Path(one).resolve() for one in named]


def _spec(top: str, folders: Sequence[Path]) -> ModuleSpec | None:
    """Where a module or package would come from; nothing is imported."""
    return PathFinder.find_spec(top, [str(folder) for folder in folders])


def _places(spec: ModuleSpec | None) -> list[Path]:
    """The file of a module; the folders of a package without one."""
    if spec is None:
        return []
    named = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or [])
    return [Path(one).resolve() for one in named]


@contextmanager
def _folders_first() -> Iterator[None]:
    """So that what is imported is what was looked for; also for modules that the user's own imports."""
    before = sys.path.copy()
    sys.path[:0] = [str(folder) for folder in _folders()]
    try:
        yield
    finally:
        sys.path[:] = before
