"""The foveation map: the expected field of view of every cell, as a raster."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.foveation.estimators import Estimator
from foveate.geometry import Window
from foveate.inference.sinks.geotiff import RasterWriter
from foveate.patches.scales import ScaleSet


def expected_view(logits: Tensor, scales: ScaleSet, estimator: Estimator) -> Tensor:
    """Expected field of view (h, w), level-0 pixels, from scale logits (S, h, w).

    The expectation is over the policy's probabilities; an estimator that does not learn gives the view it uses.
    """
    rows = logits.flatten(1).T
    weights = rows.softmax(dim=-1) if estimator.learns else estimator.inference_weights(rows)
    views = torch.tensor(scales.fields_of_view, dtype=weights.dtype)
    return (weights @ views).view(logits.shape[1:])


class FoveationMapSink:
    """Writes tiles of the foveation map as they are computed."""

    def __init__(self, writer: RasterWriter, scales: ScaleSet, estimator: Estimator) -> None:
        self._writer = writer
        self._scales = scales
        self._estimator = estimator

    def __call__(self, cells: Window, logits: Tensor) -> None:
        """Write one tile: its window in cells and its logits (S, h, w)."""
        self._writer.write(cells, expected_view(logits, self._scales, self._estimator).float().numpy())
