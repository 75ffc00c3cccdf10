"""Blocks by the plan of the paper: targets, each with the passes that the estimator makes of its cell."""

from __future__ import annotations

from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.planning.foveation_field import FoveationField
from foveate.inference.planning.per_target import PerTarget
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.predicting.predict_block import predict_block
from foveate.inference.predicting.predictor import FinishedBlock
from foveate.inference.predicting.prepare import PreparedBlock, prepare_block
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
        self._planner = PerTarget(source.size, segmenter.scales.target, config.overlap, segmenter.estimator)

    def prepare(self, block: Window) -> PreparedBlock:
        """Plan a block and read what its passes look at."""
        return prepare_block(block, self._planner, self._field, self._source, self._segmenter.scales)

    def predict(self, block: PreparedBlock) -> FinishedBlock:
        """Run the passes and stitch them."""
        logits = predict_block(block, self._segmenter, self._source, self._config)
        return FinishedBlock(block.window, logits, sum(len(group.passes) for group in block.groups))
