"""Estimators: how wide each place is looked at. A new one is a file like these, and its name in the registry below."""

from __future__ import annotations

import re
from typing import Any

from foveate.config_base import ConfigTree
from foveate.errors import ConfigError
from foveate.foveation.estimator import (
    Asked,
    Draw,
    Estimator,
    Learned,
    Look,
    Pyramid,
    Reading,
    Walk,
    each_scale,
    gumbel_noise,
    one_hot_argmax,
    one_look,
)
from foveate.foveation.estimators.fixed import Ensemble, FixedScale
from foveate.foveation.estimators.learned import GumbelSoftmax, Mixture
from foveate.foveation.estimators.pyramid import Cascade, CoarseFirst
from foveate.paper.estimators import (
    RandomScale,
    ScoreFunction,
    SoftExpectation,
    StraightThroughArgmax,
    UniformAverage,
)
from foveate.types import Alignment

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
)

__all__ = [
    "ESTIMATORS",
    "Asked",
    "Cascade",
    "CoarseFirst",
    "Draw",
    "Ensemble",
    "Estimator",
    "FixedScale",
    "GumbelSoftmax",
    "Learned",
    "Look",
    "Mixture",
    "Pyramid",
    "RandomScale",
    "Reading",
    "ScoreFunction",
    "SoftExpectation",
    "StraightThroughArgmax",
    "UniformAverage",
    "Walk",
    "each_scale",
    "gumbel_noise",
    "one_hot_argmax",
    "one_look",
]


PAPER = "_paper"
_FIXED, _ENSEMBLE = "fixed", "ensemble"
# Where one estimator has two names, the settings that tell them apart.
_TOLD_APART: dict[str, ConfigTree] = {
    "mode": {"name": "mode", "inverse": True},
    "mode_plain": {"name": "mode", "inverse": False},
    "gumbel": {"name": "gumbel", "hard": True},
    "gumbel_soft": {"name": "gumbel", "hard": False},
}
# What earlier versions called a method.
_EARLIER = {"gsm": "gumbel_soft", "gsm_hard": "gumbel", "mode": "mode_plain", "mode_inverse": "mode"}


def fixed_names(scales: int) -> list[str]:
    """The estimators of one fixed scale: fixed_1 (the narrowest) to fixed_S."""
    return [f"{_FIXED}_{k}" for k in range(1, scales + 1)]


def all_names(scales: int) -> list[str]:
    """Every name there is for S scales, baselines first."""
    own = [str(kind.model_fields["name"].default) for kind in ESTIMATORS]
    return [*fixed_names(scales), *dict.fromkeys([*(name for name in own if name != _FIXED), *_TOLD_APART])]


def members_of(name: str, scales: int) -> list[str]:
    """The names of what an ensemble joins, of the ensemble's alignment; none for any other."""
    plain, paper, _ = name.partition(PAPER)
    return [member + paper for member in fixed_names(scales)] if plain == _ENSEMBLE else []


def estimator_of(name: str, scales: int) -> ConfigTree:
    """The estimator's values that a name fixes, with or without the ending _paper.

    Raises:
        ConfigError: for an unknown name, or a fixed_k beyond the scales.
    """
    plain = name.removesuffix(PAPER)
    match = re.fullmatch(rf"{_FIXED}_(\d+)", plain)
    if match and 1 <= int(match[1]) <= scales:
        return {"name": _FIXED, "index": int(match[1]) - 1}
    if match or plain not in all_names(0):
        raise ConfigError(_unknown(name, scales))
    return _TOLD_APART.get(plain, {"name": plain})


def name_of(estimator: Estimator, alignment: Alignment = "aligned") -> str:
    """The name of an estimator in tables."""
    values = estimator.tree()
    plain = next((name for name, fixed in _TOLD_APART.items() if fixed.items() <= values.items()), str(values["name"]))
    plain = fixed_names(estimator.index + 1)[-1] if isinstance(estimator, FixedScale) else plain
    return plain + PAPER if alignment == "paper" else plain


def earlier_name(name: str) -> str | None:
    """What earlier versions called this; None where it is as it was."""
    plain, paper, _ = name.partition(PAPER)
    before = {today: earlier for earlier, today in _EARLIER.items()}.get(plain) or plain.replace(_FIXED, "patch")
    return None if before == plain else before + paper


def name_today(method: str) -> str:
    """What a method of an earlier version is called today."""
    plain, paper, _ = method.partition(PAPER)
    return (_EARLIER.get(plain) or re.sub(r"^patch_(?=\d)", f"{_FIXED}_", plain)) + paper


def with_estimator(foveation: ConfigTree, name: str) -> ConfigTree:
    """A copy of the section that uses another estimator; settings of this estimator are kept, others dropped.

    Raises:
        ConfigError: for an unknown name.
    """
    fixed = estimator_of(name, len(foveation.get("fields_of_view") or ()))
    given = foveation.get("estimator")
    given = given if isinstance(given, dict) and given.get("name", fixed["name"]) == fixed["name"] else {}
    alignment = {"alignment": "paper"} if name.endswith(PAPER) else {}
    return {**foveation, **alignment, "estimator": {**given, **fixed}}


def named_estimator(foveation: ConfigTree) -> ConfigTree:
    """A copy of the section in which an estimator that is given by its name is spelled out."""
    name: Any = foveation.get("estimator")
    return with_estimator({**foveation, "estimator": None}, name) if isinstance(name, str) else foveation


def _unknown(name: str, scales: int) -> str:
    today = name_today(name)
    if today != name:
        return f"there is no estimator {name!r}: it is called {today!r} now"
    return (
        f"unknown estimator {name!r}; for {scales} fields of view there are {', '.join(all_names(scales))}, and each "
        f"with the ending {PAPER} for the paper's alignment"
    )
