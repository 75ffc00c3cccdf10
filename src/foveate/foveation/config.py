"""Configuration of the foveation: the scales, the overview, the policy, the estimator."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from foveate.config_base import Section
from foveate.foveation.estimators import (
    CoarseFirst,
    Ensemble,
    FixedScale,
    GumbelSoftmax,
    Mixture,
    RandomScale,
    ScoreFunction,
    SoftExpectation,
    StraightThroughArgmax,
    UniformAverage,
)
from foveate.foveation.physical import is_physical
from foveate.foveation.policy import PolicyConfig
from foveate.patches.scales import ScaleSet
from foveate.types import Alignment

AnyEstimator = Annotated[
    CoarseFirst
    | SoftExpectation
    | StraightThroughArgmax
    | GumbelSoftmax
    | ScoreFunction
    | Mixture
    | FixedScale
    | RandomScale
    | UniformAverage
    | Ensemble,
    Field(discriminator="name"),
]


class FoveationConfig(Section):
    """Where a network may look how wide, and how that is decided.

    Attributes:
        patch_size: side of a patch, patch pixels.
        fields_of_view: sides of the windows to choose from, level-0 pixels, ascending, each at least `patch_size`. In a
            run's configuration lengths such as "128 um" may stand for them: see `foveation.physical`.
        overview_downsample: level-0 pixels per overview pixel; also the side of a cell.
        alignment: "aligned" reads the part of the output over the target; "paper" takes the whole output for it.
        tell_scale: tell the network the scale of a patch, by a learned gain and offset of each channel.
        policy: shape of the policy network.
        estimator: how its logits are used.
    """

    patch_size: int = Field(ge=1)
    fields_of_view: tuple[int, ...]
    overview_downsample: int = Field(default=16, ge=1)
    alignment: Alignment = "aligned"
    tell_scale: bool = False
    policy: PolicyConfig = PolicyConfig()
    estimator: AnyEstimator = GumbelSoftmax()

    @property
    def scales(self) -> ScaleSet:
        """The fields of view as a `ScaleSet`."""
        return ScaleSet(self.patch_size, self.fields_of_view)

    @property
    def views_passed(self) -> tuple[int, ...]:
        """The fields of view that the estimator ever uses."""
        return self.scales.only(self.estimator.scales_read(len(self.fields_of_view)))

    @field_validator("fields_of_view", mode="before")
    @classmethod
    def _in_pixels(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(map(is_physical, value)):
            raise ValueError("lengths need the run's patch_size and data section; give pixels here")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> FoveationConfig:
        scales = self.scales
        if isinstance(self.estimator, FixedScale) and self.estimator.index >= len(scales):
            raise ValueError(
                f"estimator.index {self.estimator.index} is beyond the {len(scales)} fields of view "
                f"{list(scales.fields_of_view)}; use 0 to {len(scales) - 1}"
            )
        return self
