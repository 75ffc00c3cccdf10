"""Weights of the classes in the cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

from foveate.errors import ConfigError
from foveate.training.config import TrainingConfig
from foveate.types import IntArray

# A class of a few pixels would otherwise dominate every batch it is in.
LARGEST_WEIGHT = 5.0


def balanced_weights(pixel_counts: Sequence[int] | IntArray) -> tuple[float, ...]:
    """Inverse square root of each class's frequency, mean 1 over the classes present, then capped.

    A class without a pixel has weight 1: no training pixel ever uses it.
    """
    pixel_counts = [int(count) for count in pixel_counts]
    present = [count**-0.5 for count in pixel_counts if count > 0]
    mean = sum(present) / len(present) if present else 1.0
    return tuple(min(LARGEST_WEIGHT, count**-0.5 / mean) if count > 0 else 1.0 for count in pixel_counts)


def resolve_class_weights(
    config: TrainingConfig, classes: int, pixel_counts: Sequence[int] | IntArray | None
) -> tuple[float, ...] | None:
    """One weight a class, or None for equal weights.

    Args:
        config: its `class_weights` is followed.
        classes: number of classes C.
        pixel_counts: labelled pixels of each class in the training images; needed for "balanced".

    Raises:
        ConfigError: when there are not C weights, or the pixels were not counted.
    """
    if config.class_weights is None:
        return None
    if config.class_weights == "balanced":
        if pixel_counts is None:
            raise ConfigError("class_weights 'balanced' needs the pixel counts of the training data; none were given")
        weights = balanced_weights(pixel_counts)
    else:
        weights = config.class_weights
    if len(weights) != classes:
        raise ConfigError(f"class_weights must give one weight for each of the {classes} classes, got {len(weights)}")
    return weights
