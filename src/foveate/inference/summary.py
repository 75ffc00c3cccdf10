"""The summary of a prediction: what was predicted, what it cost, and what could not be read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from foveate.data.config import ClassConfig
from foveate.geometry import Window
from foveate.inference.cost import CostMeter
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.storing.assemble import Assembly
from foveate.inference.work import Work


def summary_tree(
    assembly: Assembly, cost: CostMeter, found: Collection[int], work: Work, classes: Sequence[ClassConfig]
) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        assembly: of the results, written.
        cost: its clock; passes and pixels are those of the whole image, seconds those of this run.
        found: numbers of the blocks that an earlier run had stored.
        work: what was done.
        classes: in the order of the class ids.
    """
    cost.add(assembly.passes, assembly.pixels, assembly.peak)
    tree, source, model = cost.tree(), work.source, work.segmenter
    new = source.size.pixels - sum(work.grid[number].size.pixels for number in found)
    return {
        "image": source.reader.path.name,
        "image_path": _place(source),
        "height": source.size.height,
        "width": source.size.width,
        "fields_of_view": list(model.scales.fields_of_view),
        "estimator": model.estimator.tree(),
        "class_pixels": {c.name: int(n) for c, n in zip(classes, assembly.class_pixels, strict=True)},
        **tree,
        "share_looked_at": assembly.pixels / source.size.pixels,
        "skipped_passes": assembly.skipped,
        "megapixels_per_second": new / 1e6 / tree["seconds"],
        "resumed_blocks": len(found),
        "share_unreadable": sum(window.size.pixels for window, _ in assembly.failed) / source.size.pixels,
        "failed_blocks": [_failed(window, reason) for window, reason in assembly.failed],
    }


def _failed(window: Window, reason: str) -> dict[str, Any]:
    return {"window": [window.top, window.left, window.height, window.width], "reason": reason}


def _place(source: PixelSource) -> str:
    """Where the image lies, so that a viewer finds it."""
    path = source.reader.path
    return str(path.resolve()) if path.exists() else source.reader.location
