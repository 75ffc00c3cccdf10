"""The segmentation loss, a weighted sum of the usual ones, and the weights of the classes in it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import segmentation_models_pytorch as smp
import torch

from foveate.errors import ConfigError
from foveate.foveation.estimator import LossParts
from foveate.geometry import IntArray
from foveate.membership import Membership
from foveate.metrics import pixel_losses
from foveate.patches.scales import resize_logits
from foveate.training.config import LossConfig, TrainingConfig
from foveate.training.processes import process_count, sum_over_processes

_Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


FOCAL_GAMMA = 2.0  # how much less easy pixels count (Lin et al. 2017)
AUXILIARY_WEIGHT = 0.4  # of the auxiliary head of networks with deep supervision (PSPNet, arXiv 1612.01105)


class SegmentationLoss(torch.nn.Module):
    """Weighted sum of cross entropy, Dice and focal loss.

    A batch without any valid pixel gives zero, with a gradient of zero: a batch of unlabelled places is no reason
    to stop, and every process of a distributed run must still have a gradient to share.

    Of overlapping classes each is a question of yes or no: binary cross entropy, its focal form, and Dice of each.

    Where several processes train, the mean of their losses is what they learn from. For the cross entropy that is the
    mean over the valid pixels of all of them, as one process would have it; for the other losses it is the mean of each
    process's own, which differs where the processes hold different pixels. Without a gradient a loss is always that of
    the given pixels alone.

    Args:
        config: the weights and parameters of the losses.
        membership: how labels are read.
        class_weights: one weight a class, for the cross entropy only; None weighs them equally.
    """

    class_weights: torch.Tensor | None

    def __init__(
        self, config: LossConfig, membership: Membership, *, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.config, self.membership = config, membership
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # Follows from configuration and data, so it is not part of a checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)
        mode, ignored = "multilabel" if membership.overlapping else "multiclass", membership.ignore_index
        self.dice = smp.losses.DiceLoss(mode, ignore_index=ignored)
        # The sum of the normalised terms is their weighted mean; smp's "mean" would divide by the pixels once more.
        self.focal = smp.losses.FocalLoss(
            "binary" if membership.overlapping else mode,
            gamma=FOCAL_GAMMA,
            ignore_index=ignored,
            reduction="sum",
            normalized=True,
        )

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> LossParts:
        """The loss of logits (N, C, H, W), in float32, against labels (N, H, W) of any integer type."""
        logits, answers = logits.float(), self.membership.answers(label, logits.shape[1])
        used = {name: weight for name in self._losses if (weight := getattr(self.config, name)) > 0}
        values = {name: self._losses[name](logits, answers) for name in used}
        total = torch.stack([weight * values[name] for name, weight in used.items()]).sum()
        return LossParts(total, {name: value.detach() for name, value in values.items()})

    def of_heads(self, heads: Sequence[torch.Tensor], label: torch.Tensor) -> LossParts:
        """The loss of a network's logits, resampled to the labels where they differ in size.

        Args:
            heads: (N, C, h, w) each; all but the first are auxiliary, and weighted so.
            label: (N, H, H).
        """
        loss: LossParts
        loss, *others = (self(resize_logits(head, label.shape[-1]), label) for head in heads)
        for other in others:
            parts = loss.parts | {"auxiliary": other.total.detach()}
            loss = LossParts(loss.total + AUXILIARY_WEIGHT * other.total, parts)
        return loss

    @torch.no_grad()
    def of_each(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The loss (N,) of each location alone, without a gradient."""
        return torch.stack([self(logits[i : i + 1], label[i : i + 1]).total for i in range(len(logits))])

    @property
    def _losses(self) -> dict[str, _Loss]:
        return {"cross_entropy": self._cross_entropy, "dice": self.dice, "focal": self.focal}

    def _cross_entropy(self, logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        losses = pixel_losses(logits, answers, self.membership, self.class_weights)
        total = self._weights(answers).sum()
        if torch.is_grad_enabled():
            total = sum_over_processes(total) / process_count()
        # Torch's own mean is 0 / 0 without a valid pixel; clamping avoids asking the device whether there is one.
        return losses.sum() / total.clamp(min=torch.finfo(torch.float32).tiny)

    def _weights(self, answers: torch.Tensor) -> torch.Tensor:
        """What each pixel (N, H, W) counts in the mean."""
        valid = self._valid(answers)
        if self.class_weights is None:
            return valid.float()
        if self.membership.overlapping:
            return valid * self.class_weights.mean()
        return valid * self.class_weights[torch.where(valid, answers, 0)]

    def _valid(self, answers: torch.Tensor) -> torch.Tensor:
        """Which pixels (N, H, W) count."""
        return (answers[:, 0] if self.membership.overlapping else answers) != self.membership.ignore_index


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
