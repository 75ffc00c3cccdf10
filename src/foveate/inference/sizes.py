"""What the device settles before a run: "auto" sizes and precision, and how many passes a budget of seconds buys."""

from __future__ import annotations

import time

import torch

from foveate.data.area import Area
from foveate.inference.config import InferenceConfig
from foveate.inference.cost import peak_bytes
from foveate.inference.passes import Runner
from foveate.inference.plan import LookPlan
from foveate.inference.source import PixelSource
from foveate.looks.pyramid import megapixels_of, roots_of
from foveate.segmenter import FoveatedSegmenter

# On a processor more at a time brings nothing: they are the defaults.
_BATCH, _BLOCK = 16, 2048
# Of a card: no pass is faster in larger batches than this one, and blocks hold a second of its work.
_LARGEST_BATCH, _LARGE_BLOCK = 64, 4096
_OF_BATCHES, _OF_SUMS = 0.4, 0.2  # shares of its memory


def sized(
    config: InferenceConfig, segmenter: FoveatedSegmenter, device: torch.device, trained_in: str = "32"
) -> InferenceConfig:
    """The configuration with numbers where it says "auto"; they depend on the device and the network alone.

    Args:
        config: of inference.
        segmenter: on the device.
        device: where it runs. On a GPU its whole memory counts, not what is free now, so that a run that is gone on
            with has the same sizes; should they not fit, batches are halved as always.
        trained_in: precision of the training; half precision is chosen only for networks that were trained in it.
    """
    changes: dict[str, int | str] = {}
    if config.precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported()
        changes["precision"] = "bf16" if able and trained_in == "bf16" else "32"
    settled = config.model_copy(update=changes)
    if device.type != "cuda":
        sizes = {"batch_size": _BATCH, "block_size": _BLOCK}
    elif config.batch_size and config.block_size:
        sizes = {}
    else:
        total = torch.cuda.get_device_properties(device).total_memory
        sizes = sizes_for(total, *_bytes_of_a_patch(settled, segmenter, device))
    changes |= {name: size for name, size in sizes.items() if not getattr(config, name)}
    return config.model_copy(update=changes) if changes else config


def sizes_for(total: int, patch: int, classes: int) -> dict[str, int]:
    """Sizes for a card.

    Args:
        total: bytes of its memory.
        patch: that the network needs for one patch.
        classes: whose sums are kept for a block.
    """
    batch = _LARGEST_BATCH
    while batch > 1 and batch * patch > _OF_BATCHES * total:
        batch //= 2
    sums = 3 * classes * _LARGE_BLOCK**2 * 4  # and as much is kept for later blocks, and made of them
    return {"batch_size": batch, "block_size": _LARGE_BLOCK if sums <= _OF_SUMS * total else _BLOCK}


@torch.inference_mode()
def _bytes_of_a_patch(config: InferenceConfig, segmenter: FoveatedSegmenter, device: torch.device) -> tuple[int, int]:
    """Bytes that the network needs for a patch, and how many classes it gives."""
    scales, patch = len(segmenter.scales), segmenter.blank(device)
    weights = torch.eye(scales, device=device)[segmenter.estimator.reads(scales).scales[-1]][None]
    classes = 0

    def work() -> None:
        nonlocal classes
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            classes = segmenter.predict_windows(patch, weights).shape[1]

    return peak_bytes(work), classes


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
        run(inputs, weights).logits.sum().item()
        batches += 1
        start = start or time.perf_counter()
    return batches * count * config.passes_of_a_patch / (time.perf_counter() - start)
