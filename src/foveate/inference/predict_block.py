"""Run a prepared block through the network."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.inference.config import InferenceConfig
from foveate.inference.pixels import PixelSource
from foveate.inference.plan import Passes
from foveate.inference.prepare import PreparedBlock, mixed_patches
from foveate.inference.stitch import stitcher_for
from foveate.segmenter import FoveatedSegmenter


@torch.inference_mode()
def predict_block(
    block: PreparedBlock, segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig
) -> Tensor:
    """Stitched logits (C, h, w) of a block: means of logits, or logarithms where probabilities are combined.

    Every forward pass has the batch shape `config.batch_size`, the last one filled up with zeros: kernels are chosen
    once, and a patch's result does not depend on how many others were left.
    """
    stitcher = stitcher_for(block.window, source.device, config)
    by_probability = segmenter.estimator.blends_probabilities or config.stitching == "max_score"
    for passes, regions in block.groups:
        for start in range(0, len(passes), config.batch_size):
            batch = passes.select(slice(start, start + config.batch_size))
            inputs = source.normalised(mixed_patches(batch, regions, segmenter.scales))
            with torch.autocast(source.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                logits = _constant_shape(inputs, batch, segmenter, config.batch_size)
            stitcher.add(batch, logits.float().softmax(dim=1) if by_probability else logits)
    result = stitcher.result()
    return result.clamp(min=torch.finfo(result.dtype).tiny).log() if by_probability else result


def _constant_shape(inputs: Tensor, batch: Passes, segmenter: FoveatedSegmenter, size: int) -> Tensor:
    missing = size - len(batch)
    weights = batch.scale_weights.to(inputs.device)
    if missing:
        inputs = torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])])
        weights = torch.cat([weights, weights[-1:].expand(missing, -1)])
    return segmenter.predict_targets(inputs, weights, batch.supports.side)[: len(batch)]
