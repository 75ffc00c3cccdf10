"""A step of training: its optimiser, its learning rate, its seeds, and the kernels that compute it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch.optim import Optimizer

from foveate.segmenter import FoveatedSegmenter
from foveate.training.config import ScheduleName, TrainingConfig


def build_optimizer(segmenter: FoveatedSegmenter, config: TrainingConfig) -> Optimizer:
    """The optimiser with the groups "network" and, where the estimator learns, "policy"."""
    groups = parameter_groups(segmenter, config)
    # One kernel for all tensors: on a CPU a tenth of a small network's step went into one call per tensor. It
    # also skips a step that is not finite without asking the device: see `SegmentationTask`.
    devices = {p.device.type for group in groups for p in group["params"]}
    fused = devices == {"cuda"} or (devices <= {"cpu", "cuda"} and config.precision == "32")
    if config.optimizer == "sgd":
        # On a CPU as it was: the fused rule rounds differently.
        on_gpu, decay = devices == {"cuda"}, config.weight_decay
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=decay, fused=on_gpu)
    rule = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return rule(groups, weight_decay=config.weight_decay, fused=fused)


def parameter_groups(segmenter: FoveatedSegmenter, config: TrainingConfig) -> list[dict[str, Any]]:
    """Trainable parameters with their names and learning rates; a group without any is left out."""
    told = [] if segmenter.scale_embedding is None else list(segmenter.scale_embedding.parameters())
    parts = {
        "network": ([*segmenter.network.parameters(), *told], config.learning_rate),
        "policy": (segmenter.policy.parameters(), config.policy_learning_rate or config.learning_rate),
    }
    groups = [
        {"name": name, "params": [p for p in parameters if p.requires_grad], "lr": rate}
        for name, (parameters, rate) in parts.items()
    ]
    return [group for group in groups if group["params"]]


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


_PURPOSES = {"network": 0, "policy": 1}


def step_seed(seed: int, step: int, rank: int, purpose: Literal["network", "policy"]) -> int:
    """A seed, unrelated to that of any other step, rank and purpose.

    Args:
        seed: seed of the run.
        step: number of optimiser steps done.
        rank: number of the process, from 0.
        purpose: what draws from it: the network's dropout and drop path, or the policy's estimator.
    """
    state = np.random.SeedSequence((seed, step, rank, _PURPOSES[purpose])).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))  # torch takes signed 64 bits


@contextmanager
def deterministic_kernels(preferred: bool) -> Iterator[None]:
    """Within the block use deterministic kernels where torch has them, or whatever is fastest.

    Lightning's own option stays set for the rest of the process, where it would slow down inference.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if preferred:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add in any order
    torch.use_deterministic_algorithms(preferred, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
