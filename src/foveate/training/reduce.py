"""Sums and means over the processes of a training; of one process alone they change nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
