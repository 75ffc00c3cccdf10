"""Sizes of batches and blocks, and the precision, where they are "auto": from the device, found once."""

from __future__ import annotations

import torch

from foveate.inference.config import InferenceConfig
from foveate.inference.cost import peak_bytes
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
    side, scales = segmenter.scales.patch_size, len(segmenter.scales)
    patch = torch.zeros(1, segmenter.in_channels, side, side, device=device)
    weights = torch.eye(scales, device=device)[segmenter.estimator.scales_read(scales)[-1]][None]
    classes = 0

    def work() -> None:
        nonlocal classes
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            classes = segmenter.predict_windows(patch, weights).shape[1]

    return peak_bytes(work), classes
