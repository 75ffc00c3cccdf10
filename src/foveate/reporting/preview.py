"""The preview of a prediction: image, classes, and the field of view of the passes that were made, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveate.data.images import open_labels, open_working
from foveate.data.labels import class_map
from foveate.data.manifest import Sample
from foveate.data.readers import open_image
from foveate.data.readers.location import Location
from foveate.geometry import Size, Window
from foveate.inference.job import PredictionFiles
from foveate.membership import Exclusive
from foveate.reporting.panels import (
    Panel,
    cells_at,
    channels_shown,
    class_picture,
    hatched,
    image_picture,
    save_panels,
)
from foveate.reporting.passes import PassesFile
from foveate.runs.config import RunConfig
from foveate.writers.tiff import NODATA


def save_preview(image: Path | str, files: PredictionFiles, config: RunConfig, *, overwrite: bool = False) -> None:
    """Write the preview of a finished prediction.

    Args:
        image: the image that was segmented.
        files: its results; the preview is written to `files.preview`.
        config: of the run that made them.
        overwrite: replace an existing preview.
    """
    save_panels(files.preview, prediction_panels(image, files, config), config.data.classes, overwrite=overwrite)


def prediction_panels(
    image: Path | str,
    files: PredictionFiles,
    config: RunConfig,
    labels: Path | None = None,
    window: Window | None = None,
) -> list[Panel]:
    """Panels of the image, its labels where given, the prediction, and how wide each place was passed.

    On the image what was not looked at is pale under slanted lines.

    Args:
        image: the image that was segmented.
        files: its results.
        config: of the run that made them.
        labels: a mask of the image.
        window: the part to show, level-0 pixels; the whole image when None.
    """
    data, panels = config.data, []
    with open_working(image, data) as reader:
        bands = channels_shown(reader, data.bands, data.in_channels)
        window = window or Window.of(reader.size)
        picture = image_picture(reader, window, bands=bands)
    looked = _looked(files, config, window, Size(*picture.shape[:2]))
    left_out = np.isnan(looked.pixels)
    title = "image; lined: not looked at" if left_out.any() else "image"
    panels.append(Panel(title, hatched(picture, left_out)))
    if labels is not None:
        with open_labels(Sample(Path(image), labels, Location.of(image).name, "test"), data) as truth:
            panels.append(Panel("labels", class_picture(truth, data.classes, window)))
    membership = data.membership if data.overlapping else Exclusive(NODATA)
    with class_map(files.classes, len(data.classes), membership) as classes:
        panels.append(Panel("prediction", class_picture(classes, data.classes, window)))
    return [*panels, looked]


def _looked(files: PredictionFiles, config: RunConfig, window: Window, size: Size) -> Panel:
    """How wide each place was passed; where that was not written, what the policy said, which is not the same."""
    if files.passes.exists():
        return PassesFile.read(files.passes).panel(window, size)
    with open_image(files.fov) as fov:
        (expected,) = cells_at(fov, config.foveation.overview_downsample, window, size)
    return Panel("expected field of view", expected, config.foveation.fields_of_view, "pixels")
