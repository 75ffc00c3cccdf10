"""Writes reference/settings.md from the docstrings of the configuration's sections: python docs/settings.py"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from foveate.config_base import Section
from foveate.runs import RunConfig

PAGE = Path(__file__).parent / "reference" / "settings.md"
_HEAD = """# Settings

This page lists every setting of a configuration with its default. `foveate config CONFIG` prints all settings of a run.
On the command line, change a setting by its full name: `foveate train CONFIG training.steps=200`. In YAML, write "none"
as `null`.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(RunConfig, "", set()))


def count() -> int:
    """How many settings there are: no sections, nothing that only training writes, the choice of estimator once."""
    return len({path for path in _leaves(RunConfig, "", set()) if not path.startswith("data.trained_on")})


def _leaves(model: type[BaseModel], path: str, seen: set[type]) -> Iterator[str]:
    seen = seen | {model}
    for name, one in model.model_fields.items():
        place = f"{path}.{name}".lstrip(".")
        below = [kind for kind in _models(one.annotation) if kind not in seen]
        for kind in below:
            label = f"[{kind.model_fields['name'].default}]" if len(below) > 1 else ""
            yield from (leaf for leaf in _leaves(kind, place + label, seen) if not (label and leaf.endswith(".name")))
        if not below or len(below) > 1:
            yield place


def _section(model: type[BaseModel], path: str, seen: set[type]) -> Iterator[str]:
    """A heading, what the section is about, a table of its settings, and the sections below it."""
    seen = seen | {model}
    told = attributes(model)
    title = path or "The whole run"
    yield f"\n## {f'`{title}`' if path else title}\n\n{_summary(model)}\n\n"
    yield "| setting | default | what |\n|---|---|---|\n"
    for name, one in model.model_fields.items():
        yield f"| `{name}` | {_default(one)} | {told.get(name, '').replace('|', chr(92) + '|')} |\n"
    for name, one in model.model_fields.items():
        below = [kind for kind in _models(one.annotation) if kind not in seen]
        for kind in below:
            place = f"{path}.{name}".lstrip(".")
            tag = kind.model_fields.get("name")
            chosen = get_args(tag.annotation) if tag is not None and len(below) > 1 else ()
            yield from _section(kind, f"{place}: {{name: {chosen[0]}}}" if chosen else place, seen)


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of each attribute; one entry may be for several, as `mean, std`."""
    told: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        text = inspect.cleandoc(kind.__doc__ or "") if isinstance(kind, type) and issubclass(kind, BaseModel) else ""
        found = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
        for entry in re.split(r"\n(?=    \S)", found[1].rstrip()) if found else ():
            names, _, what = entry.strip().partition(":")
            told |= dict.fromkeys(re.split(r",\s*", names), " ".join(what.split()))
    return told


def _summary(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _default(one: Any) -> str:
    if one.default_factory is not None:
        return ""
    value = one.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if hasattr(value, "name") else "below"
    if value is None:
        return "none"
    value = TypeAdapter(Annotated[one.annotation, "", *one.metadata]).dump_python(value)  # as a file has it
    text = (
        str(list(value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return f"`{text}`"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{count()} settings")
