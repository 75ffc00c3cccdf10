"""The segmentation loss: a weighted sum of the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.training.config import LossConfig
from foveate.training.ohem import hardest_cross_entropy
from foveate.training.reduce import process_count, sum_over_processes

_Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class LossParts(NamedTuple):
    """A loss and what it consists of.

    Attributes:
        total: scalar, the weighted sum.
        parts: each loss in use before weighting, scalars without a gradient.
    """

    total: Tensor
    parts: dict[str, Tensor]


class SegmentationLoss(nn.Module):
    """Weighted sum of cross entropy, Dice, focal and hardest-pixel losses.

    A batch without any valid pixel gives zero, with a gradient of zero: a batch of unlabelled places is no reason
    to stop, and every process of a distributed run must still have a gradient to share.

    Where several processes train, the mean of their losses is what they learn from. For the cross entropy that is the
    mean over the valid pixels of all of them, as one process would have it; for the other losses it is the mean of each
    process's own, which differs where the processes hold different pixels. Without a gradient a loss is always that of
    the given pixels alone.

    Args:
        config: the weights and parameters of the losses.
        ignore_index: label value of pixels that do not count.
        class_weights: one weight a class, for the cross entropy only; None weighs them equally.
    """

    class_weights: Tensor | None

    def __init__(self, config: LossConfig, *, ignore_index: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.config = config
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # Follows from configuration and data, so it is not part of a checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)
        self.dice = smp.losses.DiceLoss("multiclass", ignore_index=ignore_index)
        # The sum of the normalised terms is their weighted mean; smp's "mean" would divide by the pixels once more.
        self.focal = smp.losses.FocalLoss(
            "multiclass", gamma=config.focal_gamma, ignore_index=ignore_index, reduction="sum", normalized=True
        )

    def forward(self, logits: Tensor, label: Tensor) -> LossParts:
        """The loss of logits (N, C, H, W), in float32, against labels (N, H, W) of any integer type."""
        logits, label = logits.float(), label.long()
        used = {name: weight for name in self._losses if (weight := getattr(self.config, name)) > 0}
        values = {name: self._losses[name](logits, label) for name in used}
        total = torch.stack([weight * values[name] for name, weight in used.items()]).sum()
        return LossParts(total, {name: value.detach() for name, value in values.items()})

    @torch.no_grad()
    def of_each(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss (N,) of each location alone, without a gradient."""
        return torch.stack([self(logits[i : i + 1], label[i : i + 1]).total for i in range(len(logits))])

    @property
    def _losses(self) -> dict[str, _Loss]:
        return {"cross_entropy": self._cross_entropy, "dice": self.dice, "focal": self.focal, "ohem": self._ohem}

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        valid = label != self.ignore_index
        losses = F.cross_entropy(
            logits, label, weight=self.class_weights, ignore_index=self.ignore_index, reduction="none"
        )
        weights = valid.float()
        if self.class_weights is not None:
            weights = weights * self.class_weights[torch.where(valid, label, 0)]
        total = weights.sum()
        if torch.is_grad_enabled():
            total = sum_over_processes(total) / process_count()
        # Torch's own mean is 0 / 0 without a valid pixel; clamping avoids asking the device whether there is one.
        return losses.sum() / total.clamp(min=torch.finfo(torch.float32).tiny)

    def _ohem(self, logits: Tensor, label: Tensor) -> Tensor:
        return hardest_cross_entropy(logits, label, keep=self.config.ohem_keep, ignore_index=self.ignore_index)
