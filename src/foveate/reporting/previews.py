"""Pictures of a prediction, of an evaluated image, and `PredictionResult`: what `predict` gives in a notebook."""

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate import runs
from foveate.data import Address, DataConfig, LabelReader, Sample, class_map, load_samples, open_image
from foveate.data.images import open_labels, open_sample, open_working
from foveate.evaluation.maps import MapFiles
from foveate.geometry import FloatArray, Size, Window
from foveate.inference.assemble import PredictionFiles
from foveate.membership import Exclusive
from foveate.reporting import panels as drawing
from foveate.reporting.passes import PassesFile
from foveate.texts import table_html
from foveate.tiff.raster import NODATA

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_preview(image: Path | str, files: PredictionFiles, config: runs.RunConfig, *, overwrite: bool = False) -> None:
    """Write the preview of a finished prediction."""
    drawing.save_panels(
        files.preview, prediction_panels(image, files, config), config.data.classes, overwrite=overwrite
    )


def prediction_panels(
    image: Path | str,
    files: PredictionFiles,
    config: runs.RunConfig,
    labels: Path | None = None,
    window: Window | None = None,
) -> list[drawing.Panel]:
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
        window = window or Window.of(reader.size)
        picture = drawing.image_picture(reader, window, data=data)
    looked = _looked(files, config, window, Size(*picture.shape[:2]))
    left_out = np.isnan(looked.pixels)
    title = "image (hatched: left out)" if left_out.any() else "image"
    panels.append(drawing.Panel(title, drawing.hatched(picture, left_out)))
    if labels is not None:
        with open_labels(Sample(Path(image), labels, Address.of(image).name, "test"), data) as truth:
            panels.append(_class_panel("labels", truth, data, window))
    membership = data.membership if data.overlapping else Exclusive(NODATA)
    with class_map(files.classes, len(data.classes), membership) as classes:
        panels.append(_class_panel("prediction", classes, data, window))
    return [*panels, looked]


def _class_panel(title: str, labels: LabelReader, data: DataConfig, window: Window | None = None) -> drawing.Panel:
    """Classes in their colours, striped where they overlap; what is not counted is grey."""
    window = window or Window.of(labels.size)
    found = labels.read(window, drawing.screen_size(window.size, drawing.LONGEST))
    told = f"{title} (stripes: several classes)" if data.overlapping else title
    return drawing.Panel(told, labels.membership.picture(found, [c.rgb for c in data.classes]))


def _cells_at(path: Path, cell: int, window: Window, size: Size) -> FloatArray:
    """Values (bands, h, w) of a raster of cells under the centres of the pixels of a picture.

    Args:
        path: of the raster: one value for each square of `cell` pixels.
        cell: side of a cell, level-0 pixels.
        window: what the picture shows, level-0 pixels.
        size: of the picture.
    """
    with open_image(path) as cells:
        rows, cols = (
            np.minimum(places // cell, last - 1)
            for places, last in zip(window.centres(size), (cells.size.height, cells.size.width), strict=True)
        )
        inside = Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)
        if inside.height > 2 * size.height or inside.width > 2 * size.width:
            return cells.read(inside, size)
        return cells.read(inside)[:, (rows - rows[0])[:, None], cols - cols[0]]


def _looked(files: PredictionFiles, config: runs.RunConfig, window: Window, size: Size) -> drawing.Panel:
    """How wide each place was passed; where that was not written, what the policy said, which is not the same."""
    if files.passes.exists():
        return PassesFile.read(files.passes).panel(window, size)
    (expected,) = _cells_at(files.fov, config.foveation.overview_downsample, window, size)
    return drawing.Panel("expected field of view", expected, config.foveation.fields_of_view, "pixels")


def save_map_previews(
    config: runs.RunConfig,
    split: str,
    folder: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Write a picture for every image of a split whose maps are in a folder."""
    samples = [sample for sample in load_samples(config.data) if sample.split == split]
    for sample in samples:
        files = MapFiles.in_folder(folder, sample.name)
        drawing.save_panels(files.preview, map_panels(sample, files, config), config.data.classes, overwrite=overwrite)
        if on_progress is not None:
            on_progress(1 / len(samples))


def map_panels(sample: Sample, files: MapFiles, config: runs.RunConfig) -> list[drawing.Panel]:
    """Image, labels and prediction; loss, IoU and the passes; what the policy made of every field of view."""
    data, views, cell = config.data, config.foveation.fields_of_view, config.foveation.overview_downsample
    with open_sample(sample, data) as image:
        picture = drawing.image_picture(image, data=data)
        whole, size = Window.of(image.size), Size(*picture.shape[:2])
    with open_labels(sample, data) as labels:
        truth = _class_panel("labels", labels, data)
    with class_map(files.classes, len(data.classes), data.membership) as classes:
        guess = _class_panel("prediction", classes, data)
    (loss,), (iou,) = (_cells_at(path, cell, whole, size) for path in (files.loss, files.iou))
    # Only a policy has something to say of fields of view that were not passed.
    probabilities = _cells_at(files.scales, cell, whole, size) if config.foveation.has_policy else ()
    return [
        drawing.Panel("image", picture),
        truth,
        guess,
        drawing.Panel("loss", loss, _loss_ticks(loss), "mean cross entropy", "magma"),
        drawing.Panel("IoU", iou, (0, 0.5, 1), "mean over classes"),
        PassesFile.read(files.passes).panel(whole, size),
        *(
            drawing.Panel(f"policy, {view} px", one, (0, 0.5, 1), "probability")
            for view, one in zip(views, probabilities, strict=False)
        ),
    ]


def _loss_ticks(loss: FloatArray) -> tuple[float, ...]:
    """From 0 to what 98 % of the cells stay below: the few worst would leave the others dark."""
    known = loss[np.isfinite(loss)]
    highest = float(np.percentile(known, 98)) if known.size else 1.0
    highest = float(f"{max(highest, 1e-6):.2g}")
    return (0, highest / 2, highest)


_NOTEBOOK_DPI = 60  # about 1100 pixels for three panels


class PredictionResult(dict[str, Any]):
    """The summary of a prediction, as in its JSON file, with the paths of the results and a method to draw them.

    It is an ordinary dictionary: `result["passes_per_megapixel"]`, `json.dumps(result)`. In a notebook it
    shows a table and, if class map and map of the passes were written, a picture.

    Attributes:
        image: the image that was segmented, a file or a URL.
        files: the paths of the results.
        config: that of the run.
    """

    def __init__(
        self, summary: dict[str, Any], image: Path | str, files: PredictionFiles, config: runs.RunConfig
    ) -> None:
        super().__init__(summary)
        self.image, self.files, self.config = image, files, config

    @property
    def drawable(self) -> bool:
        """Whether the outputs that are drawn, class map and map of the passes, are there."""
        return self.files.classes.exists() and (self.files.passes.exists() or self.files.fov.exists())

    def plot(self, window: Window | None = None, labels: Path | str | None = None) -> "Figure":
        """Image, labels if given, prediction and the field of view of the passes side by side.

        The image is read again, at a size for a screen.

        Args:
            window: the part to show, pixels of the prediction; the whole image when None.
            labels: a mask of the image.

        Raises:
            ImageReadError: when the image, the labels or the results cannot be read.
        """
        truth = None if labels is None else Path(labels)
        panels = prediction_panels(self.image, self.files, self.config, truth, window)
        return drawing.panels_figure(panels, self.config.data.classes)

    def _repr_html_(self) -> str:
        """Table and picture, in a notebook."""
        pixels = self["class_pixels"]
        total = max(1, sum(pixels.values()))  # nothing is counted where no block could be read
        rows = [(name, f"{count:,}", f"{100 * count / total:.1f} %") for name, count in pixels.items()]
        table = table_html(("class", "pixels", "share"), rows, self._caption())
        return table + (self._picture() if self.drawable else "")

    def _caption(self) -> str:
        """Size and cost in a line; counts of what could not be read only where there is any."""
        told = (
            f"{self['image']}: {self['width']} x {self['height']} pixels, "
            f"{self['passes_per_megapixel']:.0f} passes per megapixel, {self['seconds']:.1f} s"
        )
        failed = len(self["failed_blocks"])
        return f"{told}, {failed} block{'s' * (failed > 1)} could not be read" if failed else told

    def _picture(self) -> str:
        from foveate.reporting.report.page import data_uri  # noqa: PLC0415 - matplotlib

        buffer = io.BytesIO()
        self.plot().savefig(buffer, dpi=_NOTEBOOK_DPI)
        alt = html.escape(f"{self['image']}: image, prediction and field of view of the passes")
        return f'<img alt="{alt}" style="max-width:100%" src="{data_uri(buffer.getvalue(), "image/png")}">'


def predict_shown(run: runs.TrainedRun, image: Path | str, out: Path | str, **options: Any) -> PredictionResult:
    """`foveate.runs.predict.predict`, its summary as a `PredictionResult`."""
    summary = runs.predict.predict(run, image, out, **options)
    return PredictionResult(summary, image, runs.predict.files_of(image, out), run.config)
