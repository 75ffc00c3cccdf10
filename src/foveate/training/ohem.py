"""Online hard example mining: the loss of the hardest pixels only."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def hardest_cross_entropy(logits: Tensor, label: Tensor, *, keep: float, ignore_index: int) -> Tensor:
    """Mean cross entropy, a scalar, of the share `keep` of the valid pixels where it is largest.

    At least one pixel is kept; without any valid pixel the result is zero, with a gradient of zero. Class weights do
    not enter: they would decide what is hard.

    Args:
        logits: (N, C, H, W).
        label: (N, H, W) class ids, int64.
        keep: share of the valid pixels in the whole batch, in (0, 1].
        ignore_index: label value of pixels that are not valid.

    Source: Shrivastava et al. 2016, in the per-pixel form of segmentation.
    """
    losses = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction="none")[label != ignore_index]
    if losses.numel() == 0:
        return logits.sum() * 0
    return losses.topk(math.ceil(keep * losses.numel()), sorted=False).values.mean()
