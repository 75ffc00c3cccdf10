"""Configuration of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from foveate.config_base import Section
from foveate.training.schedule import ScheduleName

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _as_text(value: Any) -> Any:
    # YAML reads `precision: 32` as a number.
    return str(value) if isinstance(value, int) else value


class LossConfig(Section):
    """Weights of the losses that are added up; at least one above zero.

    Attributes:
        cross_entropy: of the mean cross entropy, class-weighted.
        dice: of the mean soft Dice loss of the classes present in the batch.
        focal: of the normalised focal loss.
        ohem: of the mean cross entropy of the hardest pixels.
        auxiliary: of the same sum over the auxiliary head, where the network has one (deep supervision).
        focal_gamma: how strongly the focal loss fades easy pixels; 0 is no fading.
        ohem_keep: share of the valid pixels that count as hardest.
    """

    cross_entropy: Weight = 1.0
    dice: Weight = 0.0
    focal: Weight = 0.0
    ohem: Weight = 0.0
    auxiliary: Weight = 0.4
    focal_gamma: Weight = 2.0
    ohem_keep: float = Field(default=0.25, gt=0, le=1)

    @model_validator(mode="after")
    def _some_loss(self) -> LossConfig:
        if not (self.cross_entropy or self.dice or self.focal or self.ohem):
            raise ValueError(
                "every loss has weight 0; give at least one of cross_entropy, dice, focal, ohem a weight above 0"
            )
        return self


class TrainingConfig(Section):
    """How to train.

    Attributes:
        steps: number of optimiser steps in all.
        locations_per_step: locations in the batch of one step, over all devices.
        images_per_step: images these locations come from; must divide `locations_per_step`.
        optimizer: the rule of a step.
        learning_rate: its size at the top of the schedule.
        policy_learning_rate: the same for the policy; None means `learning_rate`.
        weight_decay: pull of all weights towards zero.
        momentum: of "sgd".
        schedule: how the learning rate falls after the warm-up; "poly" is (1 - progress) ** 0.9.
        warmup_steps: steps over which the learning rate rises linearly; below `steps`.
        gradient_clip: largest norm of the gradient; None does not clip.
        precision: "32", or "bf16" for mixed bfloat16, faster on recent devices.
        losses: weights of the losses.
        class_weights: weights of the classes in the cross entropy: None, "balanced" (inverse square root of the
            classes' frequency) or one number a class.
        policy_entropy: weight of a bonus for an undecided policy, in loss per nat; keeps it from deciding early.
        validate_every: steps between validations; there is always one after the last step.
        validation_locations: most locations a validation looks at.
        checkpoint_every: steps between writes of last.ckpt; None means `validate_every`.
        log_every: steps between rows of metrics.csv.
        logger: where the curves go besides metrics.csv, with the configuration: "tensorboard", "wandb", "mlflow" (to
            MLFLOW_TRACKING_URI), or "csv" for nowhere else.
        deterministic: prefer kernels that give the same bits every time, where there are any; on a GPU the others were
            measured 1.8 times as fast. "auto" prefers them on the processor only.
        compile: compile network and loss with `torch.compile`: the first steps take minutes, the others less time; what
            it brought is told.
        seed: of everything random.
    """

    steps: int = Field(default=10_000, ge=1)
    locations_per_step: int = Field(default=16, ge=1)
    images_per_step: int = Field(default=4, ge=1)
    optimizer: Literal["adamw", "sgd", "adam"] = "adamw"
    learning_rate: Positive = 5e-4
    policy_learning_rate: Positive | None = None
    weight_decay: Weight = 1e-4
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: ScheduleName = "poly"
    warmup_steps: int = Field(default=0, ge=0)
    gradient_clip: Positive | None = 1.0
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(_as_text)] = "32"
    losses: LossConfig = LossConfig()
    class_weights: Literal["balanced"] | tuple[Weight, ...] | None = None
    policy_entropy: Weight = 0.0
    validate_every: int = Field(default=500, ge=1)
    validation_locations: int = Field(default=512, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=10, ge=1)
    logger: Literal["tensorboard", "csv", "wandb", "mlflow"] = "tensorboard"
    deterministic: bool | Literal["auto"] = "auto"
    compile: bool = False
    seed: int = Field(default=0, ge=0)

    def exact(self, on_gpu: bool) -> bool:
        """Whether kernels that give the same bits every time are preferred."""
        return not on_gpu if self.deterministic == "auto" else self.deterministic

    @property
    def checkpoint_interval(self) -> int:
        """Steps between writes of last.ckpt."""
        return self.checkpoint_every or self.validate_every

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.locations_per_step % self.images_per_step:
            raise ValueError(
                f"images_per_step {self.images_per_step} must divide locations_per_step {self.locations_per_step}, "
                f"so that every image gives equally many"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights must give at least one class a weight above 0")
        return self
