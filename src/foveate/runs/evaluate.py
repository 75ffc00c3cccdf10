"""Evaluate a trained run on a split of its data."""

from __future__ import annotations

from collections.abc import Callable

from foveate.data.manifest import SPLITS, load_samples
from foveate.data.readers import open_image
from foveate.data.sample_reader import open_labels
from foveate.errors import ConfigError, DatasetError
from foveate.inference.evaluate import Evaluation, Evaluator
from foveate.inference.pixels import PixelSource
from foveate.runs.folder import TrainedRun


def evaluate_split(
    run: TrainedRun, split: str = "val", *, on_progress: Callable[[float], None] | None = None
) -> Evaluation:
    """Predict and score every image of a split, whole.

    Args:
        run: the trained run.
        split: "train", "val" or "test".
        on_progress: told how much more of the work is done, in shares that add up to at most 1.

    Raises:
        ConfigError: for another split.
        DatasetError: when the split holds no image.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}; allowed are {', '.join(SPLITS)}")
    data = run.config.data
    samples = [sample for sample in load_samples(data) if sample.split == split]
    if not samples:
        raise DatasetError(f"no image is in the split {split!r}; see data.split in the configuration")
    evaluator = Evaluator(run.segmenter, data.class_names, data.ignore_index, run.config.inference, run.device)
    for sample in samples:
        with open_image(sample.image, keep_alpha=data.bands is not None) as image, open_labels(sample, data) as labels:
            total = image.size.pixels * len(samples)
            report = _share_of(total, on_progress)
            evaluator.add(PixelSource.of(image, data, run.device), labels, report)
    return evaluator.result()


def _share_of(total: int, on_progress: Callable[[float], None] | None) -> Callable[[int], None] | None:
    return None if on_progress is None else lambda pixels: on_progress(pixels / total)
