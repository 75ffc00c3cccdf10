"""Estimators: how wide each place is looked at. A new one is a file like these, and its name in the registry below."""

import re
from typing import Any, get_args

from foveate.config_base import ConfigTree
from foveate.errors import ConfigError
from foveate.foveation.estimator import Estimator
from foveate.foveation.estimators.in_use import Cascade, CoarseFirst, Ensemble, FixedScale, GumbelSoftmax, Mixture
from foveate.paper import (
    GLNet,
    RandomScale,
    ScoreFunction,
    SoftExpectation,
    StraightThroughArgmax,
    UniformAverage,
)

# The registry: what `foveation.estimator` may be in a configuration, by its `name`.
ESTIMATORS: tuple[type[Estimator], ...] = (
    FixedScale,
    RandomScale,
    UniformAverage,
    Ensemble,
    SoftExpectation,
    StraightThroughArgmax,
    GumbelSoftmax,
    ScoreFunction,
    Mixture,
    CoarseFirst,
    Cascade,
    GLNet,
)

__all__ = [
    "ESTIMATORS",
    "Cascade",
    "CoarseFirst",
    "Ensemble",
    "FixedScale",
    "GLNet",
    "GumbelSoftmax",
    "Mixture",
    "RandomScale",
    "ScoreFunction",
    "SoftExpectation",
    "StraightThroughArgmax",
    "UniformAverage",
]


# Endings of a name, each with the setting of the section that it selects.
_ENDINGS: dict[str, ConfigTree] = {"_paper": {"alignment": "paper"}, "_surround": {"surround": 4.0}}
_FIXED, _ENSEMBLE = "fixed", "ensemble"
# Every name with its estimator, which may have several.
_KINDS = {name: kind for kind in ESTIMATORS for name in get_args(kind.model_fields["name"].annotation)}
# What earlier versions had a setting for: the estimator, the setting, and the name for each value.
_EARLIER_SETTINGS = (
    ("mode", "inverse", {True: "mode", False: "mode_plain"}),
    ("gumbel", "hard", {True: "gumbel", False: "gumbel_soft"}),
)
# What earlier versions called a method.
_EARLIER = {"gsm": "gumbel_soft", "gsm_hard": "gumbel", "mode": "mode_plain", "mode_inverse": "mode"}


def fixed_names(scales: int) -> list[str]:
    """The estimators of one fixed scale: fixed_1 (the narrowest) to fixed_S."""
    return [f"{_FIXED}_{k}" for k in range(1, scales + 1)]


def all_names(scales: int) -> list[str]:
    """Every name there is for S scales, baselines first."""
    return [*fixed_names(scales), *(name for name in _KINDS if name != _FIXED)]


def members_of(name: str, scales: int) -> list[str]:
    """The names of what an ensemble joins, of the ensemble's alignment; none for any other."""
    plain, ending = _parted(name)
    return [member + ending for member in fixed_names(scales)] if plain == _ENSEMBLE else []


def estimator_of(name: str, scales: int) -> ConfigTree:
    """The estimator's values that a name fixes, with or without an ending.

    Raises:
        ConfigError: for an unknown name, or a fixed_k beyond the scales.
    """
    plain, _ = _parted(name)
    match = re.fullmatch(rf"{_FIXED}_(\d+)", plain)
    if match and 1 <= int(match[1]) <= scales:
        return {"name": _FIXED, "index": int(match[1]) - 1}
    if match or plain not in all_names(0):
        raise ConfigError(_unknown(name, scales))
    return {"name": plain}


def name_of(estimator: Estimator) -> str:
    """The name of an estimator in tables."""
    plain = str(estimator.tree()["name"])
    return fixed_names(estimator.index + 1)[-1] if isinstance(estimator, FixedScale) else plain


def _parted(name: str) -> tuple[str, str]:
    """A name without its ending, and the ending, or nothing."""
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending), ending


def earlier_name(name: str) -> str | None:
    """What earlier versions called this; None where it is as it was."""
    plain, ending = _parted(name)
    before = {today: earlier for earlier, today in _EARLIER.items()}.get(plain) or plain.replace(_FIXED, "patch")
    return None if before == plain else before + ending


def name_today(method: str) -> str:
    """What a method of an earlier version is called today."""
    plain, ending = _parted(method)
    return (_EARLIER.get(plain) or re.sub(r"^patch_(?=\d)", f"{_FIXED}_", plain)) + ending


def with_estimator(foveation: ConfigTree, name: str) -> ConfigTree:
    """A copy of the section that uses another estimator; settings of this estimator are kept, others dropped.

    Raises:
        ConfigError: for an unknown name.
    """
    fixed = estimator_of(name, len(foveation.get("fields_of_view") or ()))
    given = in_todays_words(foveation.get("estimator"))
    given = given if isinstance(given, dict) and same_estimator(given.get("name"), fixed["name"]) else {}
    selected = _ENDINGS.get(_parted(name)[1], {})
    if foveation.get("surround") is not None:  # another than that of the ending
        selected = {key: value for key, value in selected.items() if key != "surround"}
    return {**foveation, **selected, "estimator": {**given, **fixed}}


def named_estimator(foveation: ConfigTree) -> ConfigTree:
    """A copy of the section in which an estimator that is given by its name is spelled out, as it is named today."""
    given: Any = foveation.get("estimator")
    if isinstance(given, str):
        return with_estimator({**foveation, "estimator": None}, given)
    return {**foveation, "estimator": in_todays_words(given)} if isinstance(given, dict) else foveation


def in_todays_words(estimator: Any) -> Any:
    """An estimator of an earlier version, where a setting chose what is another name now."""
    for name, setting, names in _EARLIER_SETTINGS:
        if isinstance(estimator, dict) and estimator.get("name") == name and isinstance(estimator.get(setting), bool):
            rest = {key: value for key, value in estimator.items() if key != setting}
            estimator = {**rest, "name": names[estimator[setting]]}
    return estimator


def same_estimator(name: Any, other: str) -> bool:
    """Whether two names are of one estimator, so that its settings hold for both."""
    return name is None or _KINDS.get(str(name)) is _KINDS[other]


def _unknown(name: str, scales: int) -> str:
    if name == "squeezed":
        return (
            "there is no estimator 'squeezed': any estimator can see squeezed surroundings, by foveation.surround: 4; "
            "for one patch as before choose fixed_1, with its field of view"
        )
    today = name_today(name)
    if today != name:
        return f"there is no estimator {name!r}: it is called {today!r} now"
    return (
        f"unknown estimator {name!r}; for {scales} fields of view there are {', '.join(all_names(scales))}, and each "
        "with the ending _paper for the paper's alignment, or _surround for patches with a surround"
    )
