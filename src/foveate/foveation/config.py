"""Configuration of the foveation: the scales, in pixels or as lengths, the overview, the policy, the estimator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Field, field_validator, model_validator

from foveate.config_base import ConfigTree, Section
from foveate.errors import ConfigError
from foveate.foveation.estimator import Estimator, Joint, Learned
from foveate.foveation.estimators import ESTIMATORS, Cascade, CoarseFirst, FixedScale, named_estimator
from foveate.patches import ScaleSet
from foveate.texts import length, metres
from foveate.types import Alignment

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
    def _consistent(self) -> FoveationConfig:
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
    if foveation.get("looks") is None:
        return {key: value for key, value in foveation.items() if key != "looks"}
    looks, views = foveation["looks"], foveation.get("fields_of_view")
    estimator = foveation.get("estimator") or {}
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
    rest = {key: value for key, value in foveation.items() if key != "looks"}
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
            warnings.warn(
                f"the field of view {view} is {side:.2f} pixels of {pixel_size} and is rounded to {whole}, which is "
                f"{length(whole * pixel)}; choose a multiple of data.pixel_size",
                stacklevel=2,
            )
    return rounded


def _metres(view: Any) -> float:
    if not is_physical(view):
        raise ConfigError(f"fields_of_view are all pixels or all lengths such as '128 um', got {view!r} among lengths")
    return metres(view)
