"""Where a prediction is good: loss and IoU of every cell of a grid, as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.geometry import ceil_div
from foveate.membership import Membership


def loss_per_cell(logits: Tensor, labels: Tensor, cell: int, membership: Membership) -> Tensor:
    """Mean cross entropy of the labelled pixels of every cell.

    Args:
        logits: (C, H, W) logits or log-probabilities.
        labels: (H, W).
        cell: side of a cell in pixels; cells start at the upper left corner and are cut off at the other borders.
        membership: how logits and labels are read; of overlapping classes the mean over their yes or no is taken.

    Returns:
        (ceil(H / cell), ceil(W / cell)) float, NaN where no pixel is labelled.
    """
    answers = membership.answers(labels[None], len(logits))
    losses = pixel_losses(logits[None].float(), answers, membership)[0]
    return _cell_sums(losses, cell) / _cell_sums((labels != membership.ignore_index).float(), cell)


def pixel_losses(
    logits: Tensor, answers: Tensor, membership: Membership, class_weights: Tensor | None = None
) -> Tensor:
    """Cross entropy (N, H, W) of each pixel, 0 where it is not counted; of overlapping classes the mean over them.

    Args:
        logits: (N, C, H, W), float32.
        answers: of the labels, see `Membership.answers`.
        membership: how they are read.
        class_weights: (C,) factors on the loss of a class.
    """
    ignored = membership.ignore_index
    if not membership.overlapping:
        return F.cross_entropy(logits, answers, class_weights, ignore_index=ignored, reduction="none")
    losses = F.binary_cross_entropy_with_logits(logits, answers.clamp(min=0).float(), reduction="none")
    if class_weights is not None:
        losses = losses * class_weights.view(-1, 1, 1)
    return losses.mean(dim=1) * (answers[:, 0] != ignored)


def iou_per_cell(prediction: Tensor, labels: Tensor, cell: int, classes: int, membership: Membership) -> Tensor:
    """Mean IoU of every cell over the classes that its labels or its prediction hold.

    Args:
        prediction: (H, W) labels as `Membership.decided` gives them.
        labels: (H, W).
        cell: side of a cell in pixels, as for `loss_per_cell`.
        classes: number of classes.
        membership: how labels are read.

    Returns:
        (ceil(H / cell), ceil(W / cell)) float in [0, 1], NaN where no pixel is labelled.
    """
    rows, cols = (ceil_div(length, cell) for length in labels.shape)
    cell_rows = torch.arange(labels.shape[0], device=labels.device) // cell
    cell_cols = torch.arange(labels.shape[1], device=labels.device) // cell
    counted = labels != membership.ignore_index
    cells = (cell_rows[:, None] * cols + cell_cols)[counted]
    pairs = zip(
        membership.planes(labels[counted], classes), membership.planes(prediction[counted], classes), strict=True
    )

    def per_cell(chosen: Tensor) -> Tensor:
        return torch.bincount(cells[chosen], minlength=rows * cols).view(rows, cols)

    found = [(per_cell(truth & guess), per_cell(truth | guess)) for truth, guess in pairs]
    hit, union = (torch.stack(parts, dim=-1) for parts in zip(*found, strict=True))
    return (hit / union.clamp(min=1)).sum(dim=-1) / (union > 0).sum(dim=-1)


def _cell_sums(values: Tensor, cell: int) -> Tensor:
    """Sums over cells, in an order that is always the same (a scatter's is not, on a GPU)."""
    height, width = values.shape
    padded = F.pad(values, (0, -width % cell, 0, -height % cell))
    return padded.view(padded.shape[0] // cell, cell, -1, cell).sum(dim=(1, 3))
