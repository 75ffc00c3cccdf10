"""`PredictionResult`: what `foveate.predict` returns, which shows itself in notebooks."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.geometry import Window
from foveate.inference.job import PredictionFiles
from foveate.runs.config import RunConfig
from foveate.runs.folder import TrainedRun
from foveate.runs.predict import files_of, predict
from foveate.texts import table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    def __init__(self, summary: dict[str, Any], image: Path | str, files: PredictionFiles, config: RunConfig) -> None:
        super().__init__(summary)
        self.image, self.files, self.config = image, files, config

    @property
    def drawable(self) -> bool:
        """Whether the outputs that are drawn, class map and map of the passes, are there."""
        return self.files.classes.exists() and (self.files.passes.exists() or self.files.fov.exists())

    def plot(self, window: Window | None = None, labels: Path | str | None = None) -> Figure:
        """Image, labels if given, prediction and the field of view of the passes side by side.

        The image is read again, at a size for a screen.

        Args:
            window: the part to show, pixels of the prediction; the whole image when None.
            labels: a mask of the image.

        Raises:
            ImageReadError: when the image, the labels or the results cannot be read.
        """
        # Slow to import, and who draws nothing does not need them.
        from foveate.reporting.panels import panels_figure  # noqa: PLC0415
        from foveate.reporting.previews import prediction_panels  # noqa: PLC0415

        truth = None if labels is None else Path(labels)
        panels = prediction_panels(self.image, self.files, self.config, truth, window)
        return panels_figure(panels, self.config.data.classes)

    def _repr_html_(self) -> str:
        """Table and picture, in a notebook."""
        table = table_html(("class", "pixels", "share"), _class_rows(self["class_pixels"]), self._caption())
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


def _class_rows(pixels: dict[str, int]) -> list[tuple[str, str, str]]:
    total = max(1, sum(pixels.values()))  # nothing is counted where no block could be read
    return [(name, f"{count:,}", f"{100 * count / total:.1f} %") for name, count in pixels.items()]


def predict_shown(run: TrainedRun, image: Path | str, out: Path | str, **options: Any) -> PredictionResult:
    """`foveate.runs.predict.predict`, its summary as a `PredictionResult`."""
    summary = predict(run, image, out, **options)
    return PredictionResult(summary, image, files_of(image, out), run.config)
