"""What the processes of a training share: sums, means, and batch normalisation over the batch of all."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from foveate.networks.build import SingleValueBatchNorm2d


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
