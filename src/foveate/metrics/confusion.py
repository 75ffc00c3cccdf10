"""The streaming counts that every score is computed from."""

from __future__ import annotations

from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelConfusionMatrix

from foveate.membership import Membership


def confusion_matrix(classes: int, membership: Membership) -> Metric:
    """A metric whose state is the (C, C) count of pixels, rows = label, columns = prediction.

    Of overlapping classes it is (C, 2, 2), the no and yes of each. `update(prediction, label)` adds pixels, given as
    `Membership.answers`; `compute()` gives the counts; it adds up over devices by itself.
    """
    kind = MultilabelConfusionMatrix if membership.overlapping else MulticlassConfusionMatrix
    ignored = None if 0 <= membership.ignore_index < classes else membership.ignore_index
    metric: Metric = kind(classes, ignore_index=ignored, validate_args=False)
    return metric
