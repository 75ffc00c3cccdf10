"""How fast the network is, so that a budget of seconds can be counted in passes."""

from __future__ import annotations

import time

import torch

from foveate.data.area.area import Area
from foveate.inference.config import InferenceConfig
from foveate.inference.look_plan import LookPlan
from foveate.inference.passes import Runner
from foveate.inference.source import PixelSource
from foveate.looks.budget import megapixels_of, roots_of
from foveate.segmenter import FoveatedSegmenter

_SECONDS = 1.0  # of measuring; the least is three batches


def in_passes(
    config: InferenceConfig, segmenter: FoveatedSegmenter, source: PixelSource, area: Area | None = None
) -> InferenceConfig:
    """The configuration with a budget of seconds counted in passes per megapixel; any other is left as it is.

    The seconds are those of the network alone, measured on this device now: reading runs beside it, stitching and
    writing come on top. The number is settled before the run, so what is passed does not depend on the clock any more.

    Args:
        config: of inference.
        segmenter: in eval mode, on the source's device.
        source: the image.
        area: what is looked at; None for everything.
    """
    if not in_seconds(config.budget):
        return config
    passes = float(str(config.budget).removesuffix("s")) * passes_per_second(segmenter, source, config)
    grid = LookPlan.of(config, segmenter.estimator, segmenter.scales).grid(source.size)
    megapixels = megapixels_of(roots_of(grid, area), source.size)
    return config.model_copy(update={"budget": round(passes / max(megapixels, 1e-6), 3)})


def in_seconds(budget: float | str | None) -> bool:
    """Whether a budget is one of seconds."""
    return isinstance(budget, str) and budget.endswith("s")


def passes_per_second(segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig) -> float:
    """Forward passes that the network makes in a second, in batches as at inference; measured for about a second."""
    count, side, scales = config.batch_size, segmenter.scales.patch_size, len(segmenter.scales)
    inputs = torch.zeros(count, len(source.channels), side, side, device=source.device)
    weights = torch.eye(scales)[:1].expand(count, -1)
    run = Runner(segmenter, source, config)
    batches, start = -1, 0.0  # the first batch chooses kernels
    while batches < 3 or time.perf_counter() - start < _SECONDS:
        # Copied back, as a device may still be working when the call returns.
        run(inputs, weights).sum().item()
        batches += 1
        start = start or time.perf_counter()
    return batches * count * config.passes_of_a_patch / (time.perf_counter() - start)
