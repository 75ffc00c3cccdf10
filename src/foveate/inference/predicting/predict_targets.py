"""Blocks by the plan of the paper: targets, each with the passes that the estimator makes of its cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.planning.foveation_field import FoveationField
from foveate.inference.planning.in_area import Begun, BlockArea, begun_in
from foveate.inference.planning.pass_map import PassMap
from foveate.inference.planning.per_target import PerTarget
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.predicting.predict_block import add_outputs, as_logits
from foveate.inference.predicting.predictor import FinishedBlock
from foveate.inference.predicting.prepare import PreparedBlock, prepare_block
from foveate.inference.predicting.shared_passes import SharedPasses
from foveate.inference.predicting.stitch import stitcher_for
from foveate.segmenter import FoveatedSegmenter


class TargetPredictor:
    """Predicts blocks of one image with a plan that follows from the foveation alone.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference.
        field: the policy's logits of this image.
    """

    def __init__(
        self, segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig, field: FoveationField
    ) -> None:
        self._segmenter, self._source, self._config, self._field = segmenter, source, config, field
        self._map = PassMap.of(segmenter, config)
        self._planner = PerTarget(source.size, segmenter.scales.target, config.overlap, segmenter.estimator)
        self._passes = SharedPasses(segmenter, source, config)

    @property
    def reach(self) -> int:
        """A target may begin in the last row of a block."""
        return self._segmenter.scales.target

    def prepare(self, block: Window, area: BlockArea | None = None) -> PreparedBlock:
        """Plan a block and read what its passes look at."""
        return prepare_block(block, self._planner, self._field, self._source, self._segmenter.scales, area)

    def leave_out(self, area: BlockArea) -> FinishedBlock:
        """Where no pass is made, as many are skipped as for equal logits: the policy is not asked."""
        foveation = self._field if area.around.any() else _Undecided(len(self._segmenter.scales))
        return self._finished(area.block, begun_in(self._planner.passes(area.block, foveation), area.block, area))

    def predict(self, block: PreparedBlock, ahead: Callable[[], PreparedBlock | None]) -> FinishedBlock:
        """Run the passes and stitch them: means of logits, or logarithms where probabilities are combined."""
        model, config = self._segmenter, self._config
        stitcher = stitcher_for(block.window, self._source.device, config)
        by_probability = model.estimator.blends_probabilities or config.stitching == "max_score"
        for passes, output in self._passes.outputs(block, ahead):
            add_outputs(stitcher, passes, output, model, by_probability=by_probability)
        stitched = stitcher.result(block.area and block.area.inside)
        logits = as_logits(stitched) if by_probability else stitched
        return self._finished(block.window, block.begun, logits)

    def _finished(self, block: Window, begun: Begun, logits: Tensor | None = None) -> FinishedBlock:
        made = [(passes.supports, passes.scale_weights * passes.weight[:, None]) for passes in begun.made]
        return FinishedBlock(block, logits, begun.passes, self._map.shares(block, made), skipped=begun.skipped)


class _Undecided:
    """A foveation that prefers no scale."""

    def __init__(self, scales: int) -> None:
        self._scales = scales

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        del cols
        return torch.zeros(len(rows), self._scales)
