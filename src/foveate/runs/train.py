"""Train a run: data, segmenter, task and trainer put together from one configuration."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl

from foveate.data import FoveateDataModule, LocationSpec, Nesting, TrainedOn
from foveate.devices import cores_left_by
from foveate.networks.parts import PolicyNetwork
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder, member_configs, member_folders, segmenter_of
from foveate.training.fit import FitResult, fit, step_to_resume
from foveate.training.processes import Processes
from foveate.training.task import SegmentationTask

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingPart:
    """One training of a run: the whole of it, or one member of an ensemble."""

    config: RunConfig
    run: RunFolder
    resume: bool


@contextmanager
def trainings(
    config: RunConfig, run: RunFolder, *, resume: bool = False, overwrite: bool = False
) -> Iterator[list[TrainingPart]]:
    """What must be trained for a run: itself, or those members of an ensemble that are not trained to their end.

    Meanwhile no other process trains there. At the end an ensemble is marked as trained.

    Raises:
        OutputExistsError: when an ensemble's folder holds a run and neither `resume` nor `overwrite` is set.
        OutputInUseError: when another process trains there, naming it.
    """
    with ExitStack() as stack:
        stack.enter_context(run.locked())
        parts = _parts(config, run, resume=resume, overwrite=overwrite)
        for part in parts:
            if part.run != run:
                stack.enter_context(part.run.locked())
        yield parts
        if config.is_ensemble:
            run.mark_trained()


def _parts(config: RunConfig, run: RunFolder, *, resume: bool, overwrite: bool) -> list[TrainingPart]:
    if not config.is_ensemble:
        return [TrainingPart(config, run, resume)]
    run.start(config, resume=resume, overwrite=overwrite)
    members = [RunFolder(folder) for folder in member_folders(config, run.path)]
    return [
        TrainingPart(values, member, member.config_file.exists())
        for values, member in zip(member_configs(config).values(), members, strict=True)
        if not (member.trained_file.exists() and member.checkpoint("last").exists())
    ]


@dataclass(frozen=True, slots=True)
class PreparedTraining:
    """A training that is ready to start: data checked and indexed, network built, folder made."""

    task: SegmentationTask
    data: FoveateDataModule
    folder: Path
    resume: bool

    def fit(
        self,
        *,
        progress: bool = True,
        callbacks: Sequence[pl.Callback] = (),
        processes: Processes | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> FitResult:
        """Train to the last step; the options are those of `foveate.training.fit.fit`."""
        processes = processes or Processes.of()
        with cores_left_by(self.data.workers, processes.per_node):
            return fit(
                self.task,
                self.data,
                self.folder,
                resume=self.resume,
                progress=progress,
                callbacks=callbacks,
                processes=processes,
                should_stop=should_stop,
            )


def prepare_training(
    config: RunConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> PreparedTraining:
    """Check and index the data, build the network and make the folder; nothing is trained yet.

    Args:
        config: of the run.
        run: its folder.
        resume: continue from the last checkpoint.
        overwrite: replace an earlier run in the folder.
        on_progress: called with the share of the labels indexed, from 0 to 1.

    Raises:
        DatasetError: when the files do not make a data set; before anything is written.
        OutputExistsError: when the folder holds a run.
    """
    config.check_files()
    config = _with_trained_on(config, None)  # of an earlier training
    # The data first: what is wrong with labels is said before weights are downloaded.
    data = _data_module(config, on_progress)
    data.setup()
    config = _with_trained_on(config, data.trained_on)
    pl.seed_everything(config.training.seed, verbose=False)
    task = SegmentationTask(
        segmenter_of(config),
        config.training,
        class_names=config.data.class_names,
        normalise=data.normalisation,
        pixel_counts=data.pixel_counts.tolist(),
        config_tree=config.tree(),
        read_config=RunConfig.completed,
    )
    last = run.checkpoint("last")
    if resume and last.exists():
        step_to_resume(last.parent, task, resume)  # refuses another configuration before it replaces the saved one
    run.start(config, resume=resume, overwrite=overwrite)
    return PreparedTraining(task, data, run.path, resume)


def _with_trained_on(config: RunConfig, trained: TrainedOn | None) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"trained_on": trained})})


def train_run(
    config: RunConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    devices: int | str = 1,
    progress: bool = True,
) -> list[FitResult]:
    """Train a run, or all members of an ensemble, to the last step.

    What was taken for granted of the data, or is unusual, is logged as warnings.

    Returns:
        What each training left behind; nothing for members that were trained already.
    """
    results = []
    with trainings(config, run, resume=resume, overwrite=overwrite) as parts:
        for part in parts:
            prepared = prepare_training(part.config, part.run, resume=part.resume, overwrite=overwrite)
            _log.info(prepared.data.class_table.summary())
            for note in prepared.data.notes:
                _log.warning(note)
            results.append(prepared.fit(progress=progress, processes=Processes.of(devices)))
            part.run.mark_trained(results[-1].seconds)
    return results


def _data_module(config: RunConfig, on_progress: Callable[[float], None] | None) -> FoveateDataModule:
    scales, training, estimator = config.foveation.scales, config.training, config.foveation.estimator
    reading = estimator.reads(len(scales))
    spec = LocationSpec(
        scales=scales,
        overview_downsample=config.foveation.overview_downsample,
        policy_margin=PolicyNetwork.margin,
        scales_read=reading.scales,
        window_labels=reading.windows > 0,
        draws_scale=reading.drawn,
        nesting=None if reading.nested is None else Nesting(*reading.nested),
    )
    return FoveateDataModule(
        config.data,
        spec,
        steps=training.steps,
        images_per_step=training.images_per_step,
        locations_per_image=training.locations_per_step // training.images_per_step,
        max_validation_locations=training.validation_locations,
        seed=training.seed,
        progress=on_progress,
    )
