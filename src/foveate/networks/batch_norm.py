"""Batch normalisation that can train on a single value per channel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that, given one value per channel, normalises it by the running statistics.

    A batch of one after global pooling is such an input. It has no variance of its own, and torch refuses it in
    training. The running statistics are used, and not changed by it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training or input.numel() != input.shape[1] or self.running_mean is None:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def allow_single_values(network: nn.Module) -> None:
    """Let every `BatchNorm2d` of a network train on a single value per channel, in place.

    Parameters, buffers and their names stay as they are. Subclasses of `BatchNorm2d` bring their own forward and are
    left alone.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # A new module in its place would need its parent; the class adds no state, so changing it is enough.
            module.__class__ = SingleValueBatchNorm2d
