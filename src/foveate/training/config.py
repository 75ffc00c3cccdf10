"""Configuration of training."""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from foveate.config_base import Section

ScheduleName: TypeAlias = Literal["poly", "cosine", "constant"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _as_text(value: Any) -> Any:
    # YAML reads `precision: 32` as a number.
    return str(value) if isinstance(value, int) else value


class LossConfig(Section):
    """Weights of the losses, which are added up. At least one must be above zero.

    Attributes:
        cross_entropy: weight of the mean cross entropy, which uses the class weights.
        dice: weight of the mean soft Dice loss over the classes in the batch.
        focal: weight of the normalised focal loss, with gamma 2.
    """

    cross_entropy: Weight = 1.0
    dice: Weight = 0.0
    focal: Weight = 0.0

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not (self.cross_entropy or self.dice or self.focal):
            raise ValueError("every loss has weight 0; give cross_entropy, dice or focal a weight above 0")
        return self


class TrainingConfig(Section):
    """Steps, optimiser, schedule, losses and validation.

    Attributes:
        steps: number of optimiser steps.
        locations_per_step: number of locations in one step, over all devices.
        images_per_step: number of images that these locations come from; must divide `locations_per_step`.
        optimizer: the optimiser; "sgd" has a momentum of 0.9.
        learning_rate: the learning rate at its highest.
        policy_learning_rate: the same for the policy. The default is `learning_rate`.
        weight_decay: weight decay of all weights.
        schedule: how the learning rate falls after the warm-up; "poly" is (1 - progress) ** 0.9.
        warmup_steps: steps over which the learning rate rises linearly; must be below `steps`.
        gradient_clip: the largest norm of the gradient; null turns clipping off.
        precision: "32", or "bf16" for mixed precision, which is faster on recent devices.
        losses: weights of the losses, see `training.losses`.
        class_weights: weights of the classes in the cross entropy: "balanced" (inverse square root of their frequency)
            or one number per class. By default all are equal.
        validate_every: steps between validations. The last step is always validated.
        validation_locations: the most locations that a validation uses.
        checkpoint_every: steps between writes of last.ckpt. The default is `validate_every`.
        logger: where curves and configuration go besides metrics.csv: "tensorboard", "wandb", "mlflow" (to
            MLFLOW_TRACKING_URI), or "csv" (nowhere else).
        deterministic: prefer kernels that always give the same bits. On a GPU the other kernels were 1.8 times as fast
            in our measurements. "auto" prefers deterministic ones on the processor only.
        compile: compile network and loss with `torch.compile`. The first steps then take minutes and the others less
            time; training prints how much was gained.
        seed: seed of all random numbers.
    """

    steps: int = Field(default=10_000, ge=1)
    locations_per_step: int = Field(default=16, ge=1)
    images_per_step: int = Field(default=4, ge=1)
    optimizer: Literal["adamw", "sgd", "adam"] = "adamw"
    learning_rate: Positive = 5e-4
    policy_learning_rate: Positive | None = None
    weight_decay: Weight = 1e-4
    schedule: ScheduleName = "poly"
    warmup_steps: int = Field(default=0, ge=0)
    gradient_clip: Positive | None = 1.0
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(_as_text)] = "32"
    losses: LossConfig = LossConfig()
    class_weights: Literal["balanced"] | tuple[Weight, ...] | None = None
    validate_every: int = Field(default=500, ge=1)
    validation_locations: int = Field(default=512, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    logger: Literal["tensorboard", "csv", "wandb", "mlflow"] = "tensorboard"
    deterministic: bool | Literal["auto"] = "auto"
    compile: bool = False
    seed: int = Field(default=0, ge=0)

    def exact(self, on_gpu: bool) -> bool:
        """Whether kernels that give the same bits every time are preferred."""
        return not on_gpu if self.deterministic == "auto" else self.deterministic

    @property
    def log_interval(self) -> int:
        """Steps between rows of metrics.csv."""
        return 10 if self.steps >= 100 else 1

    @property
    def checkpoint_interval(self) -> int:
        """Steps between writes of last.ckpt."""
        return self.checkpoint_every or self.validate_every

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.locations_per_step % self.images_per_step:
            raise ValueError(
                f"images_per_step {self.images_per_step} must divide locations_per_step {self.locations_per_step}, "
                f"so that every image gives the same number"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights must give at least one class a weight above 0")
        return self
