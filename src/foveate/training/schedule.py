"""Learning rate schedules: pure functions from the step to a factor of the learning rate."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

ScheduleName: TypeAlias = Literal["poly", "cosine", "constant"]

# The usual one in semantic segmentation (DeepLab, arXiv 1606.00915).
POLY_POWER = 0.9


def poly(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1, nearly in a straight line."""
    return float((1 - progress) ** POLY_POWER)


def cosine(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1, along half a cosine wave."""
    return (1 + math.cos(math.pi * progress)) / 2


def constant(progress: float) -> float:
    """1 always."""
    return 1.0


def warm_up(step: int, warmup_steps: int) -> float:
    """Rises linearly to 1 over the first steps; the first of them is not wasted on a factor of 0."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def learning_rate_factor(schedule: ScheduleName, step: int, steps: int, warmup_steps: int = 0) -> float:
    """The factor of the learning rate in a step.

    Args:
        schedule: its course after the warm-up.
        step: number of steps done before this one, 0 for the first.
        steps: number of steps in all; the factor stays at its end value after them.
        warmup_steps: number of steps before the schedule begins.
    """
    if step < warmup_steps:
        return warm_up(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
    return {"poly": poly, "cosine": cosine, "constant": constant}[schedule](progress)
