"""The preview of a prediction: image, classes and foveation map side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveate.data.labels import class_map
from foveate.data.manifest import Sample
from foveate.data.readers import open_image
from foveate.data.readers.location import Location
from foveate.data.sample_reader import open_labels
from foveate.data.working import open_working
from foveate.geometry import Window
from foveate.inference.job import PredictionFiles
from foveate.inference.layers import NODATA
from foveate.reporting.panels import (
    Panel,
    channels_shown,
    class_picture,
    foveation_panel,
    hatched,
    image_picture,
    save_panels,
)
from foveate.runs.config import RunConfig


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
    """Panels of the image, its labels where given, the prediction and the foveation map.

    On the image what was not looked at is pale under slanted lines.

    Args:
        image: the image that was segmented.
        files: its results.
        config: of the run that made them.
        labels: a mask of the image.
        window: the part to show, level-0 pixels; the whole image when None.
    """
    data, panels = config.data, []
    with open_image(files.fov) as fov:
        cells = None if window is None else _cells(window, config.foveation.overview_downsample)
        foveation = foveation_panel(fov, config.foveation.fields_of_view, cells)
    with open_working(image, data) as reader:
        bands = channels_shown(reader, data.bands, data.in_channels)
        picture = image_picture(reader, window, bands=bands)
    left_out = np.isnan(foveation.pixels)
    title = "image; lined: not looked at" if left_out.any() else "image"
    panels.append(Panel(title, hatched(picture, left_out)))
    if labels is not None:
        with open_labels(Sample(Path(image), labels, Location.of(image).name, "test"), data) as truth:
            panels.append(Panel("labels", class_picture(truth, data.classes, window)))
    with class_map(files.classes, len(data.classes), NODATA) as classes:
        panels.append(Panel("prediction", class_picture(classes, data.classes, window)))
    return [*panels, foveation]


def _cells(window: Window, cell: int) -> Window:
    """The cells a window covers, to the nearest whole cell."""
    height, width = max(1, round(window.height / cell)), max(1, round(window.width / cell))
    return Window(round(window.top / cell), round(window.left / cell), height, width)
