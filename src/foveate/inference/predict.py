"""Segment an image of any size into rasters on disk, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.config import ClassConfig
from foveate.files import refuse_existing, write_text
from foveate.geometry import CellGrid, Size
from foveate.inference.class_ids import class_ids
from foveate.inference.config import InferenceConfig
from foveate.inference.cost import CostMeter
from foveate.inference.pixels import PixelSource
from foveate.inference.run import finished_blocks, ready_to_predict
from foveate.inference.sinks.foveation_map import FoveationMapSink
from foveate.inference.sinks.geotiff import open_geotiff
from foveate.segmenter import FoveatedSegmenter
from foveate.types import LabelArray


@dataclass(frozen=True, slots=True)
class PredictionFiles:
    """Where the results for one image lie.

    Attributes:
        classes: class map, uint8, tiled, with overviews, colour table and the image's georeference.
        fov: expected field of view per cell, float32, level-0 pixels.
        preview: picture for people.
        summary: JSON with cost and class shares.
    """

    classes: Path
    fov: Path
    preview: Path
    summary: Path

    @classmethod
    def in_folder(cls, folder: Path, stem: str) -> PredictionFiles:
        """The files for an image of this stem."""
        names = ("classes.tif", "fov.tif", "preview.png", "json")
        return cls(*(folder / f"{stem}.{name}" for name in names))

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` before any work if a result is already there."""
        for path in (self.classes, self.fov, self.preview, self.summary):
            refuse_existing(path, overwrite)


def write_prediction(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    files: PredictionFiles,
    *,
    classes: list[ClassConfig],
    config: InferenceConfig | None = None,
    overwrite: bool = False,
    on_pixels: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Segment an image of any size; memory is bounded by the block, not by the image.

    Args:
        segmenter: a trained segmenter; put into eval mode and onto the source's device.
        source: the image.
        files: where the results go; the preview is not made here.
        classes: names and colours, in the order of the class ids.
        config: of inference.
        overwrite: replace existing results.
        on_pixels: told the number of pixels done after each block.

    Returns:
        What the summary file holds.

    Raises:
        OutputExistsError: when a result exists and `overwrite` is false.
        OutputWriteError: when a result could not be written; nothing half-written stands under its name.
    """
    files.refuse_existing(overwrite)
    config, cost = config or InferenceConfig(), CostMeter()
    segmenter = ready_to_predict(segmenter, source.device)
    pixels = np.zeros(len(classes), dtype=np.int64)
    with ExitStack() as stack:
        class_map, on_tile = _open_sinks(stack, segmenter, source, files, classes, overwrite)
        for done in finished_blocks(segmenter, source, config, on_tile=on_tile):
            ids: LabelArray = class_ids(done.logits).cpu().numpy()
            class_map.write(done.window, ids)
            pixels += np.bincount(ids.ravel(), minlength=len(classes))
            cost.add(done.passes, done.window.size.pixels)
            if on_pixels is not None:
                on_pixels(done.window.size.pixels)
    summary = _summary(source, segmenter, cost, classes, pixels)
    write_text(files.summary, json.dumps(summary, indent=2) + "\n", overwrite=overwrite)
    return summary


def _open_sinks(
    stack: ExitStack,
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    files: PredictionFiles,
    classes: list[ClassConfig],
    overwrite: bool,
) -> tuple[Any, FoveationMapSink]:
    grid, place = CellGrid(source.size, segmenter.overview_downsample), source.reader.georeference
    class_map = stack.enter_context(
        open_geotiff(
            files.classes,
            source.size,
            "uint8",
            place,
            colors=[c.rgb for c in classes],
            tags={f"class_{i}": c.name for i, c in enumerate(classes)},
            overwrite=overwrite,
        )
    )
    fov = stack.enter_context(
        open_geotiff(
            files.fov,
            Size(grid.rows, grid.cols),
            "float32",
            place.coarser(grid.cell) if place else None,
            tags={"fields_of_view": str(list(segmenter.scales.fields_of_view)), "cell": str(grid.cell)},
            overwrite=overwrite,
        )
    )
    return class_map, FoveationMapSink(fov, segmenter.scales, segmenter.estimator)


def _summary(
    source: PixelSource,
    segmenter: FoveatedSegmenter,
    cost: CostMeter,
    classes: list[ClassConfig],
    pixels: np.ndarray[Any, np.dtype[np.int64]],
) -> dict[str, Any]:
    return {
        "image": source.reader.path.name,
        "height": source.size.height,
        "width": source.size.width,
        "fields_of_view": list(segmenter.scales.fields_of_view),
        "estimator": segmenter.estimator.tree(),
        "class_pixels": {c.name: int(n) for c, n in zip(classes, pixels, strict=True)},
        **cost.tree(),
    }
