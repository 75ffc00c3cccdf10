"""Run passes through the network, and bring what it says to the image's resolution."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from foveate.inference.config import InferenceConfig
from foveate.inference.planning.plan import Passes
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.predicting.prepare import PassGroup, mixed_patches
from foveate.inference.predicting.stitch import Stitcher
from foveate.segmenter import FoveatedSegmenter

# Predictions are brought to the image's resolution for so many pixels at a time: a wide support has many.
_PIXELS_AT_ONCE = 2**21


@torch.inference_mode()
def window_outputs(
    group: PassGroup, segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig
) -> Iterator[tuple[Passes, Tensor]]:
    """The network's logits (n, C, P', P') over the windows of the passes, batch by batch."""
    for start in range(0, len(group.passes), config.batch_size):
        batch = group.passes.select(slice(start, start + config.batch_size))
        inputs = mixed_patches(batch, group.regions, segmenter.scales)
        yield batch, network_outputs(inputs, batch.scale_weights, segmenter, source, config)


@torch.inference_mode()
def network_outputs(
    inputs: Tensor, scale_weights: Tensor, segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig
) -> Tensor:
    """The network's logits (n, C, P', P') on at most `config.batch_size` inputs (n, C_in, P, P) in the file's range.

    The inputs were mixed by scale weights (n, S).

    Every forward pass has the batch shape `config.batch_size`, filled up with zeros: kernels are chosen once, and a
    patch's result does not depend on how many others were left.
    """
    with torch.autocast(source.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        return _constant_shape(source.normalised(inputs), scale_weights, segmenter, config.batch_size)


@torch.inference_mode()
def add_outputs(
    stitcher: Stitcher,
    passes: Passes,
    output: Tensor,
    segmenter: FoveatedSegmenter,
    *,
    by_probability: bool,
    pixel_weights: Tensor | None = None,
) -> None:
    """Bring outputs (n, C, P', P') to the image's resolution over their supports, and stitch them."""
    side = passes.supports.side
    rows = max(1, _PIXELS_AT_ONCE // side**2)
    for start in range(0, len(passes), rows):
        part = slice(start, start + rows)
        few = passes.select(part)
        logits = segmenter.over_supports(output[part], few.scale_weights.to(output.device), side).float()
        stitcher.add(few, logits.softmax(dim=1) if by_probability else logits, pixel_weights)


@torch.inference_mode()
def as_logits(probabilities: Tensor) -> Tensor:
    """Logarithms of probabilities, in their place; none is minus infinity."""
    return probabilities.clamp_(min=torch.finfo(probabilities.dtype).tiny).log_()


def _constant_shape(inputs: Tensor, scale_weights: Tensor, segmenter: FoveatedSegmenter, size: int) -> Tensor:
    count = len(inputs)
    weights = scale_weights.to(inputs.device)
    if count < size:
        inputs = torch.cat([inputs, inputs.new_zeros(size - count, *inputs.shape[1:])])
        weights = torch.cat([weights, weights[-1:].expand(size - count, -1)])
    return segmenter.predict_windows(inputs, weights)[:count]
