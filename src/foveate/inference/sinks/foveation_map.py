"""The foveation map: the expected field of view of every cell."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.foveation.estimators import Estimator
from foveate.patches.scales import ScaleSet


def scale_probabilities(logits: Tensor, estimator: Estimator) -> Tensor:
    """The policy's probabilities (S, h, w) from scale logits (S, h, w).

    Of an estimator that does not learn, the weights it uses.
    """
    rows = logits.flatten(1).T
    weights = rows.softmax(dim=-1) if estimator.learns else estimator.inference_weights(rows)
    return weights.T.view(logits.shape)


def expected_view(probabilities: Tensor, scales: ScaleSet) -> Tensor:
    """Expected field of view (h, w), level-0 pixels, under probabilities (S, h, w) of the scales."""
    views = torch.tensor(scales.fields_of_view, dtype=probabilities.dtype)
    expected: Tensor = torch.tensordot(views, probabilities, dims=1)
    return expected
