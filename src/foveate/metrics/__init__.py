"""Metrics: a streaming confusion matrix and the scores computed from it."""

from typing import TYPE_CHECKING

from foveate.lazy import door

if TYPE_CHECKING:
    from foveate.metrics.scores import Scores, confusion_matrix, hausdorff_distances, permutation_p_value, scores_from

__all__ = ["Scores", "confusion_matrix", "hausdorff_distances", "permutation_p_value", "scores_from"]

__getattr__, __dir__ = door(
    __name__,
    {
        "scores": "Scores confusion_matrix hausdorff_distances permutation_p_value scores_from",
    },
)
