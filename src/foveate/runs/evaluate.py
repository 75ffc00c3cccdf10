"""Evaluate a trained run on a split of its data, in one process or several: first the plan, then the work."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import torch

from foveate.data import SPLITS, Sample, load_samples, open_labels, open_sample, sample_area
from foveate.data.checks import gathered
from foveate.devices import device_of
from foveate.errors import ConfigError, DatasetError
from foveate.evaluation.evaluate import Evaluation, LabelledImage, evaluation_of
from foveate.evaluation.maps import MapFiles, MapSpec
from foveate.evaluation.score import BlockScore, Scoring, score_blocks
from foveate.geometry import Window
from foveate.inference import PixelSource, executor, ready_to_predict
from foveate.inference.plan import BlockGrid, LookPlan
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder, TrainedRun, load_run

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


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
    """The images of a split and how they are scored."""

    samples: tuple[Sample, ...]  # their files
    images: tuple[LabelledImage, ...]  # the same images, as the evaluation knows them
    scoring: Scoring  # what is measured
    maps: MapSpec | None  # where maps are written; None for none

    def evaluation(
        self, blocks: Iterable[tuple[int, BlockScore]], on_progress: Callable[[float], None] | None
    ) -> Evaluation:
        """The scores of all blocks put together."""
        return evaluation_of(self.images, blocks, self.scoring, maps=self.maps, on_progress=on_progress)

    @property
    def blocks(self) -> list[tuple[int, Window]]:
        """The blocks of all images: the place of the image, and the window."""
        grids = [BlockGrid(image.size, self.scoring.block_side) for image in self.images]
        return [(place, window) for place, grid in enumerate(grids) for window in grid]


def plan_evaluation(config: RunConfig, split: str, options: EvaluationOptions) -> EvaluationPlan:
    """Find the images and look at what may stop the evaluation, before any work.

    What was taken for granted of the labels is logged as warnings.

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
    looks = LookPlan.of(config.inference, config.foveation.estimator, config.foveation.scales)
    cell, views, membership = config.foveation.overview_downsample, config.foveation.fields_of_view, data.membership
    measured = {"maps": options.maps is not None, "hausdorff": options.hausdorff}
    scoring = Scoring(config.inference, tuple(data.class_names), membership, cell, looks.root, **measured)
    if options.maps is None:
        return EvaluationPlan(samples, images, scoring, None)
    of_all = (cell, tuple(views), tuple(data.classes), membership, looks.map, options.overwrite)
    return EvaluationPlan(samples, images, scoring, MapSpec(options.maps, *of_all))


def _checked(sample: Sample, config: RunConfig) -> tuple[LabelledImage, tuple[str, ...]]:
    """The image, and what was taken for granted of its labels."""
    with open_sample(sample, config.data) as image, open_labels(sample, config.data) as labels:
        return LabelledImage(sample.name, image.size, image.georeference), labels.notes


class Loading(TypedDict, total=False):
    """How a run is loaded, and how many processes work with it.

    Processes are spawned: a script that asks for several keeps its own work under `if __name__ == "__main__":`.

    Attributes:
        checkpoint: "best", the default, or "last".
        device: "cpu" by default; "cuda" spreads the processes over all CUDA devices, on the CPU they share the cores.
        overrides: `key.subkey=value` changes to the configuration.
        processes: 1 by default.
    """

    checkpoint: str
    device: torch.device | str
    overrides: list[str] | None
    processes: int


def led(path: Path, how: Loading) -> TrainedRun:
    """The run in the process that leads: on the device where it works alone; others load it each for themselves."""
    return _loaded(path, how, how.get("device", "cpu") if how.get("processes", 1) == 1 else "cpu")


def shared(
    run: TrainedRun,
    path: Path,
    how: Loading,
    work: Callable[..., Iterable[_Result]],
    pieces: Iterable[Any],
    *given: Any,
) -> Generator[Iterable[_Result]]:
    """What `work(run, *given, piece)` gives for every piece, as it comes; in this process if one was asked for."""
    if how.get("processes", 1) == 1:
        return (work(run, *given, piece) for piece in pieces)
    return executor.shared_out(_prepared, _worked, pieces, how["processes"], path, how, work, given)


def _loaded(path: Path, how: Loading, device: torch.device | str) -> TrainedRun:
    return load_run(path, checkpoint=how.get("checkpoint", "best"), device=device, overrides=how.get("overrides"))


def _prepared(
    rank: int, path: Path, how: Loading, work: Callable[..., Iterable[_Result]], given: Sequence[Any]
) -> Callable[..., Iterable[_Result]]:
    return partial(work, _loaded(path, how, device_of(rank, str(how.get("device", "cpu")))), *given)


def _worked(prepared: Callable[..., Iterable[_Result]], piece: Any) -> list[_Result]:
    return list(prepared(piece))


def evaluate_split(
    run: TrainedRun,
    split: str = "val",
    options: EvaluationOptions = SCORES_ONLY,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Predict and score every image of a split, whole, in this process.

    Args:
        run: the trained run.
        split: "train", "val" or "test".
        options: further measurements besides the scores.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Raises:
        ConfigError, DatasetError, OutputExistsError: see `plan_evaluation`; before any work.
        OutputWriteError: when a map could not be written.
    """
    plan = plan_evaluation(run.config, split, options)
    return plan.evaluation(_scores(run, plan, plan.blocks), on_progress)


def evaluate_run(
    path: Path | str,
    split: str = "val",
    options: EvaluationOptions = SCORES_ONLY,
    *,
    on_progress: Callable[[float], None] | None = None,
    **how: Unpack[Loading],
) -> Evaluation:
    """As `evaluate_split`, of the run in a folder, in one process or several; the scores are those of one process.

    Seconds are counted from when the first process has loaded its network, and memory is that of the largest process.

    Args:
        path: the run's folder.
        split: "train", "val" or "test".
        options: further measurements besides the scores.
        on_progress: told how much more of the work is done, in shares that add up to 1.
        how: `checkpoint`, `device`, `overrides`, `processes`: see `Loading`.

    Raises:
        ConfigError, DatasetError, OutputExistsError: see `plan_evaluation`; before any work.
        CheckpointError: when the checkpoint is missing, damaged or of another configuration.
        WorkerError: when a process died.
    """
    folder, processes = RunFolder(Path(path)), how.get("processes", 1)
    if processes < 1:
        raise ConfigError(f"processes is {processes}; give at least 1")
    # Before weights are loaded: what is wrong with the data is said at once.
    plan = plan_evaluation(folder.configured(how.get("overrides")), split, options)
    # Also where others do the work: what is wrong with the run is said once, and before anything is started.
    run = led(folder.path, how)
    # Of several processes the first piece has no block: the first result says that a network is loaded, and the clock
    # starts. Under load it may be that of another piece.
    blocks = plan.blocks
    parts = [range(0), *executor.pieces_of(len(blocks), processes)] if processes > 1 else [range(len(blocks))]
    pieces = [[blocks[number] for number in part] for part in parts]
    with closing(shared(run, folder.path, how, _scores, pieces, plan)) as found:
        return plan.evaluation(chain(next(found), chain.from_iterable(found)), on_progress)


def _scores(
    run: TrainedRun, plan: EvaluationPlan, blocks: Iterable[tuple[int, Window]]
) -> Iterator[tuple[int, BlockScore]]:
    """The image's place and the score of every block; those of an image follow each other."""
    data, segmenter = run.config.data, ready_to_predict(run.segmenter, run.device)
    for index, places in groupby(blocks, key=lambda block: block[0]):
        sample = plan.samples[index]
        with open_sample(sample, data) as image, open_labels(sample, data) as labels:
            source = PixelSource.of(image, data, run.device, partial(open_sample, sample, data))
            windows = (window for _, window in places)
            area = sample_area(sample, data, image)
            for score in score_blocks(segmenter, source, labels, windows, plan.scoring, area):
                yield index, score
