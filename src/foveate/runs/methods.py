"""Methods by name: what the tables of the paper call a way of looking, as an estimator's configuration."""

from __future__ import annotations

import re

from foveate.config_base import ConfigTree
from foveate.errors import ConfigError

ENSEMBLE = "ensemble"
_METHODS: dict[str, ConfigTree] = {
    "random": {"name": "random"},
    "average": {"name": "average"},
    ENSEMBLE: {"name": "ensemble"},
    "mean": {"name": "mean"},
    "mode": {"name": "mode", "inverse": False},
    "mode_inverse": {"name": "mode", "inverse": True},
    "gsm": {"name": "gumbel", "hard": False},
    "gsm_hard": {"name": "gumbel", "hard": True},
    "score_function": {"name": "score_function"},
    "mixture": {"name": "mixture"},
}


def fixed_methods(scales: int) -> list[str]:
    """The methods of one fixed scale: patch_1 (the narrowest) to patch_S."""
    return [f"patch_{k}" for k in range(1, scales + 1)]


def all_methods(scales: int) -> list[str]:
    """Every method there is for S scales, baselines first."""
    return [*fixed_methods(scales), *_METHODS]


def estimator_of(method: str, scales: int) -> ConfigTree:
    """The estimator's values that a method fixes.

    Raises:
        ConfigError: for an unknown method, or a patch_k beyond the scales.
    """
    if method in _METHODS:
        return _METHODS[method]
    match = re.fullmatch(r"patch_(\d+)", method)
    if match and 1 <= int(match[1]) <= scales:
        return {"name": "fixed", "index": int(match[1]) - 1}
    raise ConfigError(
        f"unknown method {method!r}; for {scales} fields of view there are {', '.join(all_methods(scales))}"
    )


def with_method(values: ConfigTree, method: str) -> ConfigTree:
    """A copy of a run's configuration that uses another method; settings of its estimator are kept, others dropped."""
    foveation = values.get("foveation") or {}
    given = foveation.get("estimator") or {}
    fixed = estimator_of(method, len(foveation.get("fields_of_view") or ()))
    estimator = {**given, **fixed} if given.get("name") == fixed["name"] else fixed
    return {**values, "foveation": {**foveation, "estimator": estimator}, "method": method}


def resolve_method(values: ConfigTree) -> ConfigTree:
    """A copy of a run's configuration with the estimator that its `method` means; unchanged without one.

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
    return {**values, "foveation": {**foveation, "estimator": {**given, **fixed}}}
