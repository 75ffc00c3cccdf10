"""`predict`: segment an image file with a trained run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foveate.data.readers import open_image
from foveate.errors import ConfigError
from foveate.inference.pixels import PixelSource
from foveate.inference.predict import PredictionFiles, write_prediction
from foveate.runs.folder import TrainedRun


def check_stems(images: Sequence[Path]) -> None:
    """Refuse images whose results would have the same names.

    Raises:
        ConfigError: naming the stems.
    """
    repeated = [stem for stem, count in Counter(image.stem for image in images).items() if count > 1]
    if repeated:
        raise ConfigError(f"several images are called {', '.join(repeated)}; give each its own --out folder")


def predict(
    run: TrainedRun,
    image: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Segment one image of any size into rasters and a summary, in memory bounded by `inference.block_size`.

    Args:
        run: the trained run, from `load_run`.
        image: an image file.
        out: folder for the results, named after the image's stem.
        overwrite: replace existing results.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Returns:
        The summary, as in the JSON file: size, cost, pixels of each class.

    Raises:
        ImageReadError, UnsupportedImageError: when the image is missing, damaged or of no known format.
        DatasetError: when its bands do not fit the network.
        OutputExistsError: when a result exists and `overwrite` is false.
        OutputWriteError: when a result could not be written; nothing half-written stands under its name.
    """
    image = Path(image)
    data, files = run.config.data, PredictionFiles.in_folder(Path(out), image.stem)
    with open_image(image, keep_alpha=data.bands is not None) as reader:
        total = reader.size.pixels
        return write_prediction(
            run.segmenter,
            PixelSource.of(reader, data, run.device),
            files,
            classes=data.classes,
            config=run.config.inference,
            overwrite=overwrite,
            on_pixels=None if on_progress is None else lambda pixels: on_progress(pixels / total),
        )
