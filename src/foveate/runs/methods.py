"""Methods by name: what the tables of the paper call a way of looking, as an estimator's configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from foveate.errors import ConfigError

if TYPE_CHECKING:
    from foveate.config_base import ConfigTree

_ENSEMBLE = "ensemble"
PAPER = "_paper"
_METHODS: dict[str, ConfigTree] = {
    "random": {"name": "random"},
    "average": {"name": "average"},
    _ENSEMBLE: {"name": "ensemble"},
    "mean": {"name": "mean"},
    "mode": {"name": "mode", "inverse": False},
    "mode_inverse": {"name": "mode", "inverse": True},
    "gsm": {"name": "gumbel", "hard": False},
    "gsm_hard": {"name": "gumbel", "hard": True},
    "score_function": {"name": "score_function"},
    "mixture": {"name": "mixture"},
    "coarse_first": {"name": "coarse_first"},
    "cascade": {"name": "cascade"},
}


def fixed_methods(scales: int) -> list[str]:
    """The methods of one fixed scale: patch_1 (the narrowest) to patch_S."""
    return [f"patch_{k}" for k in range(1, scales + 1)]


def all_methods(scales: int) -> list[str]:
    """Every method there is for S scales, baselines first."""
    return [*fixed_methods(scales), *_METHODS]


def methods_text() -> str:
    """All methods in a sentence, for any number of scales."""
    return f"patch_1 (the narrowest field of view) to patch_S, {', '.join(_METHODS)}"


def members_of(method: str, scales: int) -> list[str]:
    """The methods that an ensemble joins, of the ensemble's alignment; none for any other method."""
    plain, paper, _ = method.partition(PAPER)
    return [member + paper for member in fixed_methods(scales)] if plain == _ENSEMBLE else []


def estimator_of(method: str, scales: int) -> ConfigTree:
    """The estimator's values that a method fixes, with or without the ending _paper.

    Raises:
        ConfigError: for an unknown method, or a patch_k beyond the scales.
    """
    plain = method.removesuffix(PAPER)
    if plain in _METHODS:
        return _METHODS[plain]
    match = re.fullmatch(r"patch_(\d+)", plain)
    if match and 1 <= int(match[1]) <= scales:
        return {"name": "fixed", "index": int(match[1]) - 1}
    raise ConfigError(
        f"unknown method {method!r}; for {scales} fields of view there are {', '.join(all_methods(scales))}, and each "
        f"with the ending {PAPER} for the paper's alignment"
    )


def with_views(values: ConfigTree) -> ConfigTree:
    """A copy of a run's configuration whose `foveation.looks` are the fields of view of a cascade; as it is without."""
    from foveate.foveation.config import looks_as_views  # noqa: PLC0415 - slow, and the help asks for names only

    foveation = values.get("foveation")
    return {**values, "foveation": looks_as_views(foveation)} if isinstance(foveation, dict) else values


def with_method(values: ConfigTree, method: str) -> ConfigTree:
    """A copy of a run's configuration that uses another method; settings of its estimator are kept, others dropped."""
    values = with_views(values)
    foveation = values.get("foveation") or {}
    scales = len(foveation.get("fields_of_view") or ())
    given, fixed = _named(values, scales), estimator_of(method, scales)
    estimator = {**given, **fixed} if given.get("name") == fixed["name"] else fixed
    return resolve_method({**values, "foveation": {**foveation, "estimator": estimator}, "method": method})


def _named(values: ConfigTree, scales: int) -> ConfigTree:
    """The settings of the estimator with its name, which may follow from the method; none where that is no method."""
    given = (values.get("foveation") or {}).get("estimator") or {}
    if values.get("method") is None:
        return given
    try:
        return {**given, **estimator_of(str(values["method"]), scales)}
    except ConfigError:
        return {}


def resolve_method(values: ConfigTree) -> ConfigTree:
    """A copy of a run's configuration with the estimator and alignment its `method` means; unchanged without one.

    Raises:
        ConfigError: for an unknown method, or an estimator that contradicts it.
    """
    method, foveation = values.get("method"), values.get("foveation")
    if method is None or not isinstance(foveation, dict):
        return values
    fixed = estimator_of(str(method), len(foveation.get("fields_of_view") or ()))
    given = foveation.get("estimator") or {}
    for key, value in fixed.items():
        if given.get(key, value) != value:
            raise ConfigError(
                f"method {method!r} means estimator.{key} {value!r}, but foveation.estimator says {given[key]!r}; "
                f"remove one of them"
            )
    alignment = {"alignment": "paper"} if str(method).endswith(PAPER) else {}
    return {**values, "foveation": {**foveation, **alignment, "estimator": {**given, **fixed}}}
