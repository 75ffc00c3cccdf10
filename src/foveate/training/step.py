"""A step of training: optimiser, learning rate, seeds, kernels, and what the processes of a training share."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from foveate.networks.build import SingleValueBatchNorm2d
from foveate.segmenter import FoveatedSegmenter
from foveate.training.config import ScheduleName, TrainingConfig

_MOMENTUM = 0.9  # of sgd


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
        return torch.optim.SGD(groups, momentum=_MOMENTUM, weight_decay=decay, fused=on_gpu)
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


# By progress, 0 to 1. The first is usual in semantic segmentation (DeepLab, arXiv 1606.00915).
_COURSES: dict[ScheduleName, Callable[[float], float]] = {
    "poly": lambda progress: float((1 - progress) ** 0.9),
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "constant": lambda progress: 1.0,
}


def learning_rate_factor(schedule: ScheduleName, step: int, steps: int, warmup_steps: int = 0) -> float:
    """The factor of the learning rate in a step.

    Args:
        schedule: its course after the warm-up.
        step: number of steps done before this one, 0 for the first.
        steps: number of steps in all; the factor stays at its end value after them.
        warmup_steps: number of steps before the schedule begins.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)  # the first step is not wasted on a factor of 0
    progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
    return _COURSES[schedule](progress)


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


class _Sum(torch.autograd.Function):
    """Torch's own differentiable sum is deprecated, and what is to replace it is private."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient)


def process_count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor of any shape, differentiable: its gradient is the sum of the processes' gradients.

    Every process must call it, in the same order.
    """
    if process_count() == 1:
        return value
    total: Tensor = _Sum.apply(value)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor of any shape, without a gradient; every process must call it, in the same order."""
    return sum_over_processes(value.detach()) / process_count()


# What can be normalised over all processes instead; the last of them adds an activation, which is kept.
_KNOWN_FORWARDS = (_BatchNorm.forward, SingleValueBatchNorm2d.forward, BatchNormAct2d.forward)


class Statistics(NamedTuple):
    """Of the channels C over the batch of all processes, differentiable, in float64.

    Attributes:
        mean: (C,).
        variance: (C,) biased.
        values: scalar, number of values of each channel.
    """

    mean: Tensor
    variance: Tensor
    values: Tensor


def batch_statistics(batch: Tensor) -> Statistics:
    """Statistics of (N, C, ...) over all processes, whose N may differ."""
    axes = [axis for axis in range(batch.dim()) if axis != 1]
    # Accurate in float32 within a process; squares of means would lose digits there when they are joined.
    variance, mean = (part.double() for part in torch.var_mean(batch.float(), axes, correction=0))
    count = torch.full_like(mean, batch.numel() // batch.shape[1])
    total = sum_over_processes(torch.stack([count, count * mean, count * (variance + mean**2)]))
    mean = total[1] / total[0]
    return Statistics(mean, total[2] / total[0] - mean**2, total[0, 0].detach())


class _SyncedBatchNorm(_BatchNorm):
    """Mixed into the class of a batch normalisation; normalises as it does, in training over all processes."""

    # What torch's own expects of its layers. It is no base, as DDP refuses such layers on a CPU.
    process_group: Any = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, batch: Tensor) -> Tensor:
        if not self.training:
            return super().forward(batch)
        output = nn.SyncBatchNorm.forward(self, batch) if batch.is_cuda else self._normalise(batch)  # type: ignore[arg-type]
        return self.act(self.drop(output)) if isinstance(self, BatchNormAct2d) else output

    def _normalise(self, batch: Tensor) -> Tensor:
        self._check_input_dim(batch)  # type: ignore[no-untyped-call]
        statistics = batch_statistics(batch)
        self._track(statistics)
        scale = (statistics.variance + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = -statistics.mean * scale + (0 if self.bias is None else self.bias)
        shape = (1, -1) + (1,) * (batch.dim() - 2)
        output = torch.addcmul(shift.float().view(shape), batch.float(), scale.float().view(shape))
        return output.to(batch.dtype)

    @torch.no_grad()
    def _track(self, statistics: Statistics) -> None:
        mean, variance, batches = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.track_running_stats or mean is None or variance is None or batches is None:
            return
        batches.add_(1)
        share = 1 / int(batches) if self.momentum is None else self.momentum
        unbiased = statistics.variance * statistics.values / (statistics.values - 1)
        mean.lerp_(statistics.mean.to(mean.dtype), share)
        variance.lerp_(unbiased.to(variance.dtype), share)


class BatchNormSync(LayerSync):
    """Makes every batch normalisation of a module see the batch of all processes while it trains.

    Only the class of the layers changes, for as long as training lasts: parameters, hooks and names in the state stay.
    Lightning's own puts plain layers in their place, and leaves out the activation that timm's layers hold. A layer
    with another forward of its own is not changed.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronise the layers of a module, in place."""
        for layer in model.modules():
            if type(layer).forward in _KNOWN_FORWARDS:
                layer.__class__ = type(f"Synced{type(layer).__name__}", (_SyncedBatchNorm, type(layer)), {})
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give the layers of a module their own classes back."""
        for layer in model.modules():
            if isinstance(layer, _SyncedBatchNorm):
                layer.__class__ = type(layer).__bases__[1]
        return model
