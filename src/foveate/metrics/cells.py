"""Where a prediction is good: loss and IoU of every cell of a grid, as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.geometry import ceil_div


def loss_per_cell(logits: Tensor, labels: Tensor, cell: int, ignore_index: int) -> Tensor:
    """Mean cross entropy of the labelled pixels of every cell.

    Args:
        logits: (C, H, W) logits or log-probabilities.
        labels: (H, W) int64 class ids.
        cell: side of a cell in pixels; cells start at the upper left corner and are cut off at the other borders.
        ignore_index: label that is not counted.

    Returns:
        (ceil(H / cell), ceil(W / cell)) float, NaN where no pixel is labelled.
    """
    losses = F.cross_entropy(logits[None].float(), labels[None], ignore_index=ignore_index, reduction="none")[0]
    return _cell_sums(losses, cell) / _cell_sums((labels != ignore_index).float(), cell)


def iou_per_cell(prediction: Tensor, labels: Tensor, cell: int, classes: int, ignore_index: int) -> Tensor:
    """Mean IoU of every cell over the classes that its labels or its prediction hold.

    Args:
        prediction: (H, W) int64 class ids.
        labels: (H, W) int64 class ids.
        cell: side of a cell in pixels, as for `loss_per_cell`.
        classes: number of classes.
        ignore_index: label that is not counted.

    Returns:
        (ceil(H / cell), ceil(W / cell)) float in [0, 1], NaN where no pixel is labelled.
    """
    rows, cols = (ceil_div(length, cell) for length in labels.shape)
    cell_rows = torch.arange(labels.shape[0], device=labels.device) // cell
    cell_cols = torch.arange(labels.shape[1], device=labels.device) // cell
    counted = labels != ignore_index
    cells = (cell_rows[:, None] * cols + cell_cols)[counted]
    truth, guess = labels[counted], prediction[counted]

    def per_class(chosen: Tensor, ids: Tensor) -> Tensor:
        return torch.bincount(chosen * classes + ids, minlength=rows * cols * classes).view(rows, cols, classes)

    right = truth == guess
    hit = per_class(cells[right], truth[right])
    union = per_class(cells, truth) + per_class(cells, guess) - hit
    return (hit / union.clamp(min=1)).sum(dim=-1) / (union > 0).sum(dim=-1)


def _cell_sums(values: Tensor, cell: int) -> Tensor:
    """Sums over cells, in an order that is always the same (a scatter's is not, on a GPU)."""
    height, width = values.shape
    padded = F.pad(values, (0, -width % cell, 0, -height % cell))
    return padded.view(padded.shape[0] // cell, cell, -1, cell).sum(dim=(1, 3))
