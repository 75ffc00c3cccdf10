"""Layers: what is kept of a block's logits, one byte a pixel, before it goes into files.

`foveate.writers.outputs.write_outputs` writes them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.data.area.area import AreaPart
from foveate.geometry import Size
from foveate.inference.config import Output
from foveate.membership import Membership
from foveate.writers.tiff import FULL, NODATA, Layers

__all__ = ["FULL", "NODATA", "Layers", "block_layers", "limit", "pass_bytes", "unknown_layers"]

# Of `Layers`: "classes" (h, w), of overlapping classes (C, h, w) of 0 and 1, "confidence" (h, w), "entropy" (h, w) and
# "probabilities" (C, h, w) are uint8;
# "foveation", which whoever asks the policy adds, is float32 (rows, cols) of the block's cells, NaN where unknown;
# "passes", which whoever makes them adds, is uint8 (L, rows, cols) of the pixels of `PassMap`.
# Pixels that are turned into bytes at a time: so many stay in the processor's cache, and little is in memory twice.
AT_ONCE = 2**17


def block_layers(logits: Tensor, outputs: Collection[Output], membership: Membership) -> Layers:
    """The layers of a block.

    Args:
        logits: (C, h, w), C from 2 to 255.
        outputs: those wanted, as in `InferenceConfig.outputs`; "classes" is always there, "foveation", "passes"
            and "polygons" are not made from logits.
        membership: how classes are read off logits.

    Returns:
        By output: the classes; the probabilities; confidence in the classes; entropy as a share of its largest value.
        Of overlapping classes confidence is that in the least sure yes or no, entropy the mean of theirs. Shares from 0
        to 1 are bytes from 0 to `FULL`.
    """
    classes, height, width = logits.shape
    layers = unknown_layers(Size(height, width), classes, outputs, membership)
    rows = max(1, AT_ONCE // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        for name, values in _strip_layers(logits[:, strip], outputs, membership).items():
            layers[name][..., strip, :] = values
    return layers


def _strip_layers(logits: Tensor, outputs: Collection[Output], membership: Membership) -> Layers:
    decided, classes = membership.decided(logits).cpu().numpy(), len(logits)
    layers: Layers = {"classes": np.stack(membership.planes(decided, classes)) if membership.overlapping else decided}
    logits = logits.float()
    if not {"probabilities", "confidence"}.isdisjoint(outputs):
        probabilities = membership.probabilities(logits, dim=0)
        if "probabilities" in outputs:
            layers["probabilities"] = _bytes(probabilities)
        if "confidence" in outputs:
            layers["confidence"] = _bytes(membership.confidence(probabilities))
    if "entropy" in outputs:
        layers["entropy"] = _bytes(membership.entropy(logits, dim=0) / membership.most_entropy(classes))
    return layers


def pass_bytes(shares: Tensor) -> NDArray[np.uint8]:
    """Shares of passes as bytes; what is there stays there, however little."""
    values: NDArray[np.uint8] = np.maximum(_bytes(shares), (shares > 0).numpy().astype(np.uint8))
    return values


def unknown_layers(size: Size, classes: int, outputs: Collection[Output], membership: Membership) -> Layers:
    """The layers of a block that could not be read: `NODATA` everywhere.

    Args:
        size: of the block.
        classes: C.
        outputs: as of `block_layers`.
        membership: says whether there is one class a pixel.
    """
    shapes: dict[Output, tuple[int, ...]] = {
        "classes": (classes, size.height, size.width) if membership.overlapping else (size.height, size.width),
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
        layers["classes"][..., part.glass] = glass


def _bytes(shares: Tensor) -> NDArray[np.uint8]:
    rounded = (shares * FULL).round_().clamp_(0, FULL).to(torch.uint8)
    values: NDArray[np.uint8] = rounded.cpu().numpy()
    return values
