"""The foveation map: the expected field of view of every cell, as a raster."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.foveation.estimators import Estimator
from foveate.geometry import Window
from foveate.inference.sinks.geotiff import RasterWriter
from foveate.patches.scales import ScaleSet


def scale_probabilities(logits: Tensor, estimator: Estimator) -> Tensor:
    """The policy's probabilities (S, h, w) from scale logits (S, h, w).

    Of an estimator that does not learn, the weights it uses.
    """
    rows = logits.flatten(1).T
    weights = rows.softmax(dim=-1) if estimator.learns else estimator.inference_weights(rows)
    return weights.T.view(logits.shape)


def expected_view(logits: Tensor, scales: ScaleSet, estimator: Estimator) -> Tensor:
    """Expected field of view (h, w), level-0 pixels, under the `scale_probabilities` of scale logits (S, h, w)."""
    views = torch.tensor(scales.fields_of_view, dtype=logits.dtype)
    expected: Tensor = torch.tensordot(views, scale_probabilities(logits, estimator), dims=1)
    return expected


class FoveationMapSink:
    """Writes tiles of the foveation map as they are computed."""

    def __init__(self, writer: RasterWriter, scales: ScaleSet, estimator: Estimator) -> None:
        self._writer = writer
        self._scales = scales
        self._estimator = estimator

    def __call__(self, cells: Window, logits: Tensor) -> None:
        """Write one tile: its window in cells and its logits (S, h, w)."""
        self._writer.write(cells, expected_view(logits, self._scales, self._estimator).float().numpy())
