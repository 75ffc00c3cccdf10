"""The preview of an evaluated image: what is there, what was predicted, where it is wrong, and where it looked how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from foveate.data.labels import class_map
from foveate.data.manifest import Sample, load_samples
from foveate.data.readers import open_image
from foveate.data.sample_reader import open_labels, open_sample
from foveate.geometry import Window
from foveate.inference.score import MapFiles
from foveate.reporting.panels import (
    Panel,
    channels_shown,
    class_picture,
    image_picture,
    save_panels,
    screen_size,
)
from foveate.runs.config import RunConfig
from foveate.types import FloatArray

_LONGEST = 1200


def save_map_previews(
    config: RunConfig,
    split: str,
    folder: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Write a picture for every image of a split whose maps are in a folder.

    Args:
        config: of the run that was evaluated.
        split: "train", "val" or "test".
        folder: of the maps; the pictures go there too.
        overwrite: replace existing pictures.
        on_progress: told how much more is done, in shares that add up to 1.

    Raises:
        ImageReadError: when an image, its labels or its maps cannot be read.
        OutputExistsError: when a picture exists and `overwrite` is false.
    """
    samples = [sample for sample in load_samples(config.data) if sample.split == split]
    for sample in samples:
        files = MapFiles.in_folder(folder, sample.name)
        save_panels(files.preview, map_panels(sample, files, config), config.data.classes, overwrite=overwrite)
        if on_progress is not None:
            on_progress(1 / len(samples))


def map_panels(sample: Sample, files: MapFiles, config: RunConfig) -> list[Panel]:
    """Image, labels and prediction; loss, IoU and expected field of view; the probability of every field of view.

    Args:
        sample: an evaluated image.
        files: its maps.
        config: of the run that was evaluated.
    """
    data, views = config.data, config.foveation.fields_of_view
    with open_sample(sample, data) as image:
        picture = image_picture(image, bands=channels_shown(image, data.bands, data.in_channels))
    with open_labels(sample, data) as labels:
        truth = class_picture(labels, data.classes)
    with class_map(files.classes, len(data.classes), data.ignore_index) as classes:
        guess = class_picture(classes, data.classes)
    (loss,), (iou,), probabilities = _values(files.loss), _values(files.iou), _values(files.scales)
    expected = np.tensordot(np.array(views, np.float32), probabilities, axes=1)
    return [
        Panel("image", picture),
        Panel("labels", truth),
        Panel("prediction", guess),
        Panel("loss", loss, _loss_ticks(loss), "mean cross entropy", "magma"),
        Panel("IoU", iou, (0, 0.5, 1), "mean over classes"),
        Panel("expected field of view", expected, tuple(views), "pixels"),
        *(
            Panel(f"field of view {view} px", values, (0, 0.5, 1), "probability")
            for view, values in zip(views, probabilities, strict=True)
        ),
    ]


def _values(path: Path) -> FloatArray:
    """All bands (b, h, w) of a map, at a size for a screen."""
    with open_image(path) as raster:
        values: FloatArray = raster.read(Window.of(raster.size), screen_size(raster.size, _LONGEST))
    return values


def _loss_ticks(loss: FloatArray) -> tuple[float, ...]:
    """From 0 to what 98 % of the cells stay below: the few worst would leave the others dark."""
    known = loss[np.isfinite(loss)]
    highest = float(np.percentile(known, 98)) if known.size else 1.0
    highest = float(f"{max(highest, 1e-6):.2g}")
    return (0, highest / 2, highest)
