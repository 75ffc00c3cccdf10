"""Layers: what is kept of a block's logits, one byte a pixel, before it goes into files.

`foveate.writers.outputs.write_outputs` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.data.area.area import AreaPart
from foveate.geometry import Size
from foveate.inference.config import Output
from foveate.inference.stitch import class_ids
from foveate.writers.tiff import FULL, NODATA, Layers

__all__ = ["FULL", "NODATA", "Layers", "block_layers", "limit", "pass_bytes", "unknown_layers"]

# Of `Layers`: "classes" (h, w), "confidence" (h, w), "entropy" (h, w) and "probabilities" (C, h, w) are uint8;
# "foveation", which whoever asks the policy adds, is float32 (rows, cols) of the block's cells, NaN where unknown;
# "passes", which whoever makes them adds, is uint8 (L, rows, cols) of the pixels of `PassMap`.
# Pixels that are turned into bytes at a time: so many stay in the processor's cache, and little is in memory twice.
AT_ONCE = 2**17


def block_layers(logits: Tensor, outputs: Collection[Output]) -> Layers:
    """The layers of a block.

    Args:
        logits: (C, h, w), C from 2 to 255.
        outputs: those wanted, as in `InferenceConfig.outputs`; "classes" is always there, "foveation", "passes"
            and "polygons" are not made from logits.

    Returns:
        By output: class ids; the probabilities; confidence, the largest probability; entropy of the probabilities, as a
        share of its largest value log C. Shares from 0 to 1 are bytes from 0 to `FULL`.
    """
    classes, height, width = logits.shape
    layers = unknown_layers(Size(height, width), classes, outputs)
    rows = max(1, AT_ONCE // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        for name, values in _strip_layers(logits[:, strip], outputs).items():
            layers[name][..., strip, :] = values
    return layers


def _strip_layers(logits: Tensor, outputs: Collection[Output]) -> Layers:
    layers: Layers = {"classes": class_ids(logits).cpu().numpy()}
    if not {"probabilities", "confidence", "entropy"}.isdisjoint(outputs):
        logarithms = logits.float().log_softmax(dim=0)
        probabilities = logarithms.exp()
        if "probabilities" in outputs:
            layers["probabilities"] = _bytes(probabilities)
        if "confidence" in outputs:
            layers["confidence"] = _bytes(probabilities.amax(dim=0))
        if "entropy" in outputs:
            layers["entropy"] = _bytes(_entropy(probabilities, logarithms))
    return layers


def pass_bytes(shares: Tensor) -> NDArray[np.uint8]:
    """Shares of passes as bytes; what is there stays there, however little."""
    values: NDArray[np.uint8] = np.maximum(_bytes(shares), (shares > 0).numpy().astype(np.uint8))
    return values


def unknown_layers(size: Size, classes: int, outputs: Collection[Output]) -> Layers:
    """The layers of a block that could not be read: `NODATA` everywhere.

    Args:
        size: of the block.
        classes: C.
        outputs: as of `block_layers`.
    """
    shapes: dict[Output, tuple[int, ...]] = {
        "classes": (size.height, size.width),
        "probabilities": (classes, size.height, size.width),
        "confidence": (size.height, size.width),
        "entropy": (size.height, size.width),
    }
    wanted = {"classes", *outputs}
    return {name: np.full(shape, NODATA, np.uint8) for name, shape in shapes.items() if name in wanted}


def limit(layers: Layers, part: AreaPart, glass: int | None) -> None:
    """Put `NODATA` into the layers of bytes wherever a block was not looked at.

    Args:
        layers: of the block; changed in place.
        part: what was looked at.
        glass: class id of what was left out because it is glass; None for `NODATA` there too.
    """
    for values in layers.values():
        values[..., ~part.inside] = NODATA
    if glass is not None:
        layers["classes"][part.glass] = glass


def _entropy(probabilities: Tensor, logarithms: Tensor) -> Tensor:
    """(h, w) in [0, 1]; a probability of 0 counts 0, whose logarithm may be infinite."""
    terms = torch.where(probabilities > 0, probabilities * logarithms, 0)
    return -terms.sum(dim=0) / math.log(len(probabilities))


def _bytes(shares: Tensor) -> NDArray[np.uint8]:
    rounded = (shares * FULL).round_().clamp_(0, FULL).to(torch.uint8)
    values: NDArray[np.uint8] = rounded.cpu().numpy()
    return values
