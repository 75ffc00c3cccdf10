"""The streaming confusion matrix that every score is computed from."""

from __future__ import annotations

from torchmetrics.classification import MulticlassConfusionMatrix


def confusion_matrix(classes: int, ignore_index: int) -> MulticlassConfusionMatrix:
    """A metric whose state is the (classes, classes) count of pixels, rows = label, columns = prediction.

    `update(prediction, label)` adds pixels, `compute()` gives the counts; it adds up over devices by itself.
    """
    return MulticlassConfusionMatrix(
        classes, ignore_index=None if 0 <= ignore_index < classes else ignore_index, validate_args=False
    )
