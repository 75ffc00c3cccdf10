"""What every configuration section shares: typed, frozen, unknown keys refused with the nearest known one named."""

import difflib
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from foveate.errors import ConfigError
from foveate.texts import load_yaml, read_text

ConfigTree = dict[str, Any]
_MOST_BYTES = 1 << 20
_FEW = 3  # keys that are proposed
_MOST_SHOWN = 200  # letters of a wrong value
# Of an encoder: "imagenet", the path of a checkpoint, or None, for which YAML and the command line may say "none".
Weights: TypeAlias = Annotated[
    str | None, AfterValidator(lambda text: None if text is not None and text.lower() == "none" else text)
]


class Section(BaseModel):
    """Base of all configuration sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: ConfigTree, source: str = "config") -> Self:
        """Validate a tree of plain values.

        Args:
            values: nested dictionaries, as YAML gives them.
            source: what to call it in an error, usually the file's name.

        Raises:
            ConfigError: naming every bad key and value, what is allowed, and the nearest known key.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: " + "; ".join(_explained(cls, error))) from None

    def tree(self) -> ConfigTree:
        """Plain nested values that `parse` accepts again."""
        return self.model_dump(mode="json")


# How pydantic names the kinds of a value that may be of several: "float", "constrained-str", "tuple[int, ...]".
_KIND = re.compile(r"(bool|float|int|str)$|constrained-|[a-z-]+\[")


def _explained(section: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """A line for each bad key, and for each bad value, which may be wrong for every kind that is allowed."""
    wrong: dict[tuple[str, str], list[str]] = {}
    for detail in error.errors():
        path = [str(part) for part in detail["loc"]]
        if detail["type"] == "extra_forbidden":
            yield _unknown(section, path)
            continue
        # Of a whole section the message itself says what is wrong.
        shown = repr(detail["input"])
        shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
        got = "" if isinstance(detail["input"], dict) else f" (got {shown})"
        name = ".".join(part for part in path if not _KIND.match(part))
        wrong.setdefault((name, got), []).append(detail["msg"].removeprefix("Value error, "))
    for (name, got), reasons in wrong.items():
        first, *more = dict.fromkeys(reasons)
        reason = " or ".join([first, *(other.removeprefix("Input should be ") for other in more)])
        yield f"{name}: {reason}{got}" if name else reason + got


def _unknown(section: type[BaseModel], path: list[str]) -> str:
    name = ".".join(path)
    known = sorted(_known_keys(section, path[:-1]))
    elsewhere = sorted({key for key in _all_keys(section) if key.rpartition(".")[2] == path[-1]})
    # Of another kind, such as another estimator, it is no help.
    elsewhere = [key for key in elsewhere if not set(key.split(".")) <= set(path)]
    nearest = elsewhere[:_FEW] or difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"known keys: {', '.join(known)}"
    word, colon, value = path[-1].partition(":")
    if colon:  # YAML takes one without a space for a part of the word
        hint = f"write a space after the colon: {{{word}: {value}}}"
    return f"unknown key {name!r}; {hint}"


def _all_keys(section: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every key of a section and those below it, in full."""
    for name, field in section.model_fields.items():
        yield before + name
        for model in sorted(_models_in(field.annotation), key=lambda model: model.__name__):
            yield from _all_keys(model, f"{before}{name}.")


def _known_keys(section: type[BaseModel], path: list[str]) -> set[str]:
    """Keys allowed at a path; a part that is no field (an index, a union's tag) is stepped over."""
    current = {section}
    for part in path:
        fields = [model.model_fields[part].annotation for model in current if part in model.model_fields]
        if fields:
            current = {model for annotation in fields for model in _models_in(annotation)}
        else:
            current = {model for model in current if _has_tag(model, part)} or current
    return {key for model in current for key in model.model_fields}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)}


def _has_tag(model: type[BaseModel], tag: str) -> bool:
    return any(tag in getattr(field.annotation, "__args__", ()) for field in model.model_fields.values())


def read_yaml(path: Path) -> ConfigTree:
    """The mapping in a YAML file.

    Raises:
        ConfigError: when the file is missing, is not YAML in UTF-8, is far too large, or does not hold a mapping.
    """
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    text = read_text(path, ConfigError, "give a configuration for `foveate train`", _MOST_BYTES)
    values = load_yaml(text, str(path), ConfigError)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, got {type(values).__name__}")
    return values


def with_overrides(values: ConfigTree, overrides: list[str]) -> ConfigTree:
    """A copy of the tree with `a.b.c=value` overrides applied; values are read as YAML.

    Raises:
        ConfigError: when an override has no `=`, a value that is not YAML, or descends into something that is not a
            mapping.
    """
    result = deepcopy(values)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ConfigError(f"an override must look like key.subkey=value, got {override!r}")
        *parents, last = path.split(".")
        node = result
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"cannot set {path!r}: {part!r} is not a section")
        node[last] = load_yaml(text, f"the value of {path}", ConfigError)
    return result


ABSENT: Any = object()  # the value of a key that is not there


def value_at(tree: Any, path: str) -> Any:
    """The value under a path such as "data.classes"; `ABSENT` where there is none."""
    for key in path.split("."):
        tree = tree.get(key, ABSENT) if isinstance(tree, dict) else ABSENT
    return tree


def differences(before: Any, now: Any, path: str = "") -> list[tuple[str, str]]:
    """Where two trees differ: each path with a line such as "inference.overlap was 0.25, is now 0.5".

    Args:
        before: plain values; `ABSENT` where there is none.
        now: the same of now.
        path: of both.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        pairs = [(f"{path}.{key}" if path else str(key), before.get(key, ABSENT), now.get(key, ABSENT)) for key in keys]
        return [line for below, old, new in pairs for line in differences(old, new, below)]
    return [] if before == now else [(path, f"{path} was {_shown(before)}, is now {_shown(now)}")]


def _shown(value: Any) -> str:
    return "not given" if value is ABSENT else repr(value)
