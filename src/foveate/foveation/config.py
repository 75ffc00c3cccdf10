"""Configuration of the foveation: the fields of view, in pixels or as lengths, and the estimator, by its name."""

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, Union, get_args

from pydantic import Field, field_validator, model_validator

from foveate import paper
from foveate.config_base import ConfigTree, Section
from foveate.errors import ConfigError, Note
from foveate.foveation.estimator import Estimator, Joint, Learned
from foveate.foveation.estimators import Cascade, CoarseFirst, Ensemble, FixedScale, GumbelSoftmax, Mixture
from foveate.patches import ScaleSet
from foveate.texts import length, metres
from foveate.types import Alignment

# The registry: what `foveation.estimator` may be in a configuration, by its `name`.
ESTIMATORS: tuple[type[Estimator], ...] = (
    FixedScale,
    paper.RandomScale,
    paper.UniformAverage,
    Ensemble,
    paper.SoftExpectation,
    paper.StraightThroughArgmax,
    GumbelSoftmax,
    paper.ScoreFunction,
    Mixture,
    CoarseFirst,
    Cascade,
    paper.GLNet,
)

if TYPE_CHECKING:
    AnyEstimator: TypeAlias = Estimator
else:
    AnyEstimator = Annotated[Union[ESTIMATORS], Field(discriminator="name")]  # noqa: UP007 - of a tuple


class FoveationConfig(Section):
    """Fields of view, and how one is chosen for each place.

    `looks: [1024, 256]`, widest first, is short for a cascade of these fields of view: the estimator `cascade`.

    Attributes:
        patch_size: side of a patch, the input of the network, in pixels.
        fields_of_view: sides of the windows to choose from, in image pixels, ascending, each at least `patch_size`. The
            configuration of a run may give lengths, such as "128 um".
        surround: how many times as wide as its field of view all that a patch shows is, such as 4: the field of view is
            sharp in the middle of the patch, three quarters of its side, and the rim shows what lies around it,
            squeezed. A pass costs as much as without. By default a patch shows its field of view only.
        overview_downsample: image pixels per overview pixel. A cell of the policy has this side.
        alignment: "aligned" takes the part of the output that lies over the target; "paper" takes the whole output for
            it.
        tell_scale: tell the network the scale of a patch, by a learned gain and offset of each channel.
        estimator: how wide each place is looked at: a name, such as mixture or fixed_1 (`foveate compare --help` lists
            them), or a name with settings, see `foveation.estimator`.
    """

    patch_size: int = Field(ge=1)
    fields_of_view: tuple[int, ...]
    surround: float | None = Field(default=None, gt=1, allow_inf_nan=False)
    overview_downsample: int = Field(default=16, ge=1)
    alignment: Alignment = "aligned"
    tell_scale: bool = False
    estimator: AnyEstimator = CoarseFirst()

    @property
    def scales(self) -> ScaleSet:
        """The fields of view as a `ScaleSet`."""
        return ScaleSet(self.patch_size, self.fields_of_view, self.surround)

    @property
    def views_passed(self) -> tuple[int, ...]:
        """The fields of view that the estimator ever uses."""
        return self.scales.only(self.estimator.reads(len(self.fields_of_view)).scales)

    @property
    def has_policy(self) -> bool:
        """Whether a policy is learned, and asked where to look how wide."""
        return isinstance(self.estimator, Learned)

    @model_validator(mode="before")
    @classmethod
    def _read_looks(cls, values: Any) -> Any:
        return named_estimator(looks_as_views(values)) if isinstance(values, dict) else values

    @field_validator("fields_of_view", mode="before")
    @classmethod
    def _in_pixels(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(map(is_physical, value)):
            raise ValueError("lengths need the patch_size and the data section of a run; give pixels here")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scales = self.scales
        if isinstance(self.estimator, Cascade):
            self.estimator.check_looks(self.fields_of_view[::-1])
            if self.alignment == "paper":
                raise ValueError("a cascade does not work with alignment paper")
            if self.surround is not None:
                raise ValueError(
                    "a cascade gets its surroundings as context from the wider look; remove foveation.surround, or use "
                    "another estimator, such as coarse_first"
                )
        if self.surround is not None and (self.alignment == "paper" or isinstance(self.estimator, Joint)):
            raise ValueError(
                "foveation.surround works with neither alignment paper nor an estimator that joins two patches; "
                "remove one of them"
            )
        if isinstance(self.estimator, Joint) and len(scales) < 2:
            raise ValueError(
                f"the estimator sees two fields of view at once, but fields_of_view is {list(scales.fields_of_view)}; "
                "give a narrow and a wide one"
            )
        if isinstance(self.estimator, FixedScale) and self.estimator.index >= len(scales):
            raise ValueError(
                f"estimator.index {self.estimator.index} is beyond the {len(scales)} fields of view "
                f"{list(scales.fields_of_view)}; use 0 to {len(scales) - 1}"
            )
        return self


def looks_as_views(foveation: ConfigTree) -> ConfigTree:
    """A copy of the section in which `looks`, widest first, are the fields of view of a cascade; unchanged without.

    Raises:
        ConfigError: when the section says something else as well.
    """
    looks, rest = foveation.get("looks"), {key: value for key, value in foveation.items() if key != "looks"}
    if looks is None:
        return rest
    views, estimator = rest.get("fields_of_view"), rest.get("estimator") or {}
    estimator = {"name": estimator} if isinstance(estimator, str) else estimator
    if not isinstance(looks, list | tuple) or not isinstance(estimator, dict):
        raise ConfigError(f"foveation.looks are fields of view, widest first, such as [1024, 256]; got {looks!r}")
    if views is not None and list(views) != list(reversed(looks)):
        raise ConfigError(f"foveation has looks {list(looks)} and fields_of_view {list(views)}; remove one of them")
    if estimator.get("name", "cascade") != "cascade":
        raise ConfigError(
            f"foveation.looks needs a cascade, but foveation.estimator is {estimator['name']}; remove the estimator, "
            "or give fields_of_view instead of looks"
        )
    if all(isinstance(look, int) for look in looks):
        Cascade.check_looks(looks)
    return {**rest, "fields_of_view": list(reversed(looks)), "estimator": {**estimator, "name": "cascade"}}


_TOLD_FROM = 0.01


def is_physical(view: Any) -> bool:
    """Whether a field of view is a length rather than a number of pixels."""
    return isinstance(view, str) and not view.strip().lstrip("+-").isdigit()


def pixel_size_of(views: Sequence[Any], pixels: int) -> str:
    """The pixel size with which the narrowest field of view is as many pixels as the patch has for it.

    Args:
        views: fields of view, all of them lengths.
        pixels: side of a patch, or of the middle of one with a surround.

    Raises:
        ConfigError: when one is no length.
    """
    return length(min(map(_metres, views)) / pixels)


def in_pixels(views: Sequence[Any], pixel_size: str) -> tuple[int, ...]:
    """Fields of view as whole numbers of pixels; warns of those that rounding changes by more than 1%.

    Args:
        views: all of them lengths.
        pixel_size: side of a pixel, a length.

    Raises:
        ConfigError: when one is no length.
    """
    pixel = metres(pixel_size)
    exact = [_metres(view) / pixel for view in views]
    rounded = tuple(max(1, round(side)) for side in exact)
    for view, side, whole in zip(views, exact, rounded, strict=True):
        if abs(whole - side) > _TOLD_FROM * side:
            text = f"the field of view {view} is {side:.2f} pixels of {pixel_size} and is rounded to {whole}, which is "
            warnings.warn(f"{text}{length(whole * pixel)}; choose a multiple of data.pixel_size", Note, stacklevel=2)
    return rounded


def _metres(view: Any) -> float:
    if not is_physical(view):
        raise ConfigError(f"fields_of_view are all pixels or all lengths such as '128 um', got {view!r} among lengths")
    return metres(view)


# Endings of a name, each with the setting of the section that it selects.
_ENDINGS: dict[str, ConfigTree] = {"_paper": {"alignment": "paper"}, "_surround": {"surround": 4.0}}
_FIXED = "fixed"
# Every name with its estimator, which may have several.
_KINDS = {name: kind for kind in ESTIMATORS for name in get_args(kind.model_fields["name"].annotation)}
# What earlier versions had a setting for: the setting of the estimator, and the name where it is false.
_EARLIER_SETTINGS = {"mode": ("inverse", "mode_plain"), "gumbel": ("hard", "gumbel_soft")}
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
    return [member + ending for member in fixed_names(scales)] if plain == "ensemble" else []


def estimator_of(name: str, scales: int) -> ConfigTree:
    """The estimator's values that a name fixes, with or without an ending.

    Raises:
        ConfigError: for an unknown name, or a fixed_k beyond the scales.
    """
    plain, fixed = _parted(name)[0], fixed_names(scales)
    if plain in fixed:
        return {"name": _FIXED, "index": fixed.index(plain)}
    if plain not in all_names(0):
        raise ConfigError(_unknown(name, scales))
    return {"name": plain}


def name_of(estimator: Estimator) -> str:
    """The name of an estimator in tables."""
    if isinstance(estimator, FixedScale):
        return fixed_names(estimator.index + 1)[-1]
    return str(estimator.tree()["name"])


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
    selected = {**_ENDINGS.get(_parted(name)[1], {}), "estimator": {**given, **fixed}}
    if foveation.get("surround") is not None:  # another than that of the ending
        selected.pop("surround", None)
    return {**foveation, **selected}


def named_estimator(foveation: ConfigTree) -> ConfigTree:
    """A copy of the section in which an estimator that is given by its name is spelled out, as it is named today."""
    given: Any = foveation.get("estimator")
    if isinstance(given, str):
        return with_estimator({**foveation, "estimator": None}, given)
    return {**foveation, "estimator": in_todays_words(given)} if isinstance(given, dict) else foveation


def in_todays_words(estimator: Any) -> Any:
    """An estimator of an earlier version, where a setting chose what is another name now."""
    name = estimator.get("name") if isinstance(estimator, dict) else None
    setting, other = _EARLIER_SETTINGS.get(str(name), ("", ""))
    if name is None or not isinstance(estimator.get(setting), bool):
        return estimator
    rest = {key: value for key, value in estimator.items() if key != setting}
    return {**rest, "name": name if estimator[setting] else other}


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
