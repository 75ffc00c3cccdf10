"""What an evaluation is about to do: which images, in which blocks, measured how."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foveate.data.checks import gathered
from foveate.data.images import open_labels, open_sample
from foveate.data.manifest import Sample, load_samples
from foveate.data.splits import SPLITS
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import Window
from foveate.inference.evaluate import LabelledImage
from foveate.inference.plan import BlockGrid, LookPlan
from foveate.inference.score import MapFiles, MapSpec, Scoring
from foveate.runs.config import RunConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is measured besides the scores.

    Attributes:
        hausdorff: the 95 % Hausdorff distance of every class.
        maps: folder for maps of loss, IoU and scale probabilities per cell; None for none.
        overwrite: replace existing maps.
    """

    hausdorff: bool = False
    maps: Path | None = None
    overwrite: bool = False


SCORES_ONLY = EvaluationOptions()


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The images of a split and how they are scored; the blocks of all of them are numbered through.

    Attributes:
        samples: their files.
        images: the same images, as the evaluation knows them.
        scoring: what is measured.
        maps: where maps are written; None for none.
    """

    samples: tuple[Sample, ...]
    images: tuple[LabelledImage, ...]
    scoring: Scoring
    maps: MapSpec | None

    def grid(self, index: int) -> BlockGrid:
        """The blocks of an image."""
        return BlockGrid(self.images[index].size, self.scoring.block_side)

    @property
    def blocks(self) -> int:
        """Number of blocks of all images."""
        return sum(len(self.grid(i)) for i in range(len(self.images)))

    def places(self, numbers: Iterable[int]) -> Iterator[tuple[int, Window]]:
        """The image and window of blocks, from ascending numbers."""
        index, before = 0, 0
        for number in numbers:
            while number - before >= len(self.grid(index)):
                before += len(self.grid(index))
                index += 1
            yield index, self.grid(index)[number - before]


def plan_evaluation(config: RunConfig, split: str, options: EvaluationOptions) -> EvaluationPlan:
    """Find the images and look at what may stop the evaluation, before any work.

    What was taken for granted of the labels is logged as warnings.

    Args:
        config: of the run.
        split: "train", "val" or "test".
        options: what is measured besides the scores.

    Raises:
        ConfigError: for another split.
        DatasetError: when the split holds no image, or a mask is not of its image's size.
        OutputExistsError: when a map exists and may not be replaced.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}; allowed are {', '.join(SPLITS)}")
    data = config.data
    samples = tuple(sample for sample in load_samples(data) if sample.split == split)
    if not samples:
        raise DatasetError(f"no image is in the split {split!r}; see data.split in the configuration")
    if options.maps is not None:
        for sample in samples:
            MapFiles.in_folder(options.maps, sample.name).refuse_existing(options.overwrite)
    checked = [_checked(sample, config) for sample in samples]
    for note in gathered((image.name, notes) for image, notes in checked):
        _log.warning(note)
    images = tuple(image for image, _ in checked)
    return EvaluationPlan(samples, images, _scoring(config, options), _map_spec(config, options))


def _scoring(config: RunConfig, options: EvaluationOptions) -> Scoring:
    return Scoring(
        config.inference,
        tuple(config.data.class_names),
        config.data.membership,
        config.foveation.overview_downsample,
        LookPlan.of(config.inference, config.foveation.estimator, config.foveation.scales).root,
        maps=options.maps is not None,
        hausdorff=options.hausdorff,
    )


def _map_spec(config: RunConfig, options: EvaluationOptions) -> MapSpec | None:
    if options.maps is None:
        return None
    return MapSpec(
        options.maps,
        config.foveation.overview_downsample,
        tuple(config.foveation.fields_of_view),
        tuple(config.data.classes),
        config.data.membership,
        LookPlan.of(config.inference, config.foveation.estimator, config.foveation.scales).map,
        options.overwrite,
    )


def _checked(sample: Sample, config: RunConfig) -> tuple[LabelledImage, tuple[str, ...]]:
    """The image, and what was taken for granted of its labels."""
    with open_sample(sample, config.data) as image, open_labels(sample, config.data) as labels:
        return LabelledImage(sample.name, image.size, image.georeference), labels.notes
