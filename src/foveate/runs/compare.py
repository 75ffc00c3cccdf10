"""Compare estimators: the same data, network and training passes, several seeds, each run in a process of its own."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foveate.build import check_same_config
from foveate.config_base import read_yaml
from foveate.data.manifest import load_samples
from foveate.errors import CheckpointError, ConfigError, OutputExistsError
from foveate.files import write_text
from foveate.foveation.config import all_names, earlier_name, members_of, with_estimator
from foveate.foveation.estimator import Joint
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.jobs import Job, run_jobs
from foveate.texts import read_tree

_PER_CELL = ("members",)


@dataclass(frozen=True, slots=True)
class Cell:
    """One estimator with one seed."""

    estimator: str  # its name
    seed: int  # of the training
    run: RunFolder  # its run folder

    @property
    def name(self) -> str:
        """Name of the run folder, and of the log."""
        return self.run.path.name


class Comparison:
    """Trains and evaluates every estimator with every seed, in one folder.

    Args:
        config: what the estimators share; settings of its estimator are used where that is compared.
        estimators: names, see `foveate.foveation.config`.
        seeds: one training of each estimator for each.
        folder: for runs/METHOD-seedN and logs/; one that holds a comparison of the same configuration is continued.
        split: what is evaluated; test where it holds an image, else val, when None.

    Raises:
        ConfigError: for an unknown or repeated estimator or seed.
        OutputExistsError: when the folder holds a comparison of another configuration.
    """

    def __init__(
        self, config: RunConfig, estimators: Sequence[str], seeds: Sequence[int], folder: Path, split: str | None = None
    ) -> None:
        self.config, self.estimators, self.seeds, self.folder = config, estimators, seeds, folder
        self._runs: dict[tuple[str, int], RunFolder] = {}
        for name, values in (("estimator", estimators), ("seed", seeds)):
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"give each {name} once and at least one, got {list(values)}")
        for estimator in estimators:
            _with_estimator(config, estimator)
        # Also where a split is given: a missing data set fails every estimator.
        tested = any(sample.split == "test" for sample in load_samples(config.data))
        self.split = split or ("test" if tested else "val")
        self._keep_config()

    @property
    def cells(self) -> list[Cell]:
        """One for each estimator and seed, seed by seed, so that a comparison that is stopped has whole rows."""
        return [self._cell(estimator, seed) for seed in self.seeds for estimator in self.estimators]

    def run(self, slots: Sequence[dict[str, str]], on_change: Callable[[list[str], int, int], None]) -> dict[str, str]:
        """Do what is not done yet.

        Returns:
            By name of the failed job, the end of its log.
        """
        return run_jobs(self._jobs(), slots, on_change)

    def results(self) -> dict[str, dict[int, dict[str, Any]]]:
        """The evaluations that are done: by estimator and seed, as `foveate evaluate` wrote them."""
        results: dict[str, dict[int, dict[str, Any]]] = {estimator: {} for estimator in self.estimators}
        for cell in self.cells:
            path = cell.run.evaluation(self.split)
            if path.exists():
                results[cell.estimator][cell.seed] = read_tree(
                    path, ConfigError, "remove it; it will be made again", ours=True
                )
        return results

    def training_passes(self, estimator: str) -> int:
        """Patches that pass through networks in one training of an estimator."""
        members = self._members(estimator)
        if members:
            return sum(self.training_passes(member) for member in members)
        return self._steps(estimator)["steps"] * self._locations(estimator) * self._passes(estimator)

    def _keep_config(self) -> None:
        """Save what the estimators share, or see that it is what was saved."""
        path = self.folder / "config.yaml"
        shared = {key: value for key, value in self.config.tree().items() if key not in _PER_CELL}
        if not path.exists():
            write_text(path, yaml.safe_dump(shared, sort_keys=False, allow_unicode=True))
            return
        try:
            check_same_config(RunConfig.completed(read_yaml(path)), shared, list(shared))
        except CheckpointError as error:
            raise OutputExistsError(f"{self.folder} holds another comparison: {error}; or give another --out") from None

    def _cell(self, estimator: str, seed: int) -> Cell:
        """Its run is where an earlier version left it, under the name that the estimator had there."""
        if (estimator, seed) not in self._runs:
            self._runs[estimator, seed] = self._run_of(estimator, seed)
        return Cell(estimator, seed, self._runs[estimator, seed])

    def _run_of(self, estimator: str, seed: int) -> RunFolder:
        names = [name for name in (estimator, earlier_name(estimator)) if name]
        runs = [RunFolder(self.folder / "runs" / f"{name}-seed{seed}") for name in names]
        wanted = _with_estimator(self.config, estimator).foveation
        for run in runs:
            if run.config_file.exists() and RunConfig.load(run.config_file).foveation == wanted:
                return run
        if runs[0].config_file.exists():
            raise OutputExistsError(
                f"{runs[0].path} belongs to another estimator than {estimator}; move it away, or give another --out"
            )
        return runs[0]

    def _jobs(self) -> list[Job]:
        """Training and evaluation of every cell, and of the members that an ensemble needs."""
        jobs: dict[str, Job] = {}
        for cell in self.cells:
            needed = [self._training(self._cell(member, cell.seed)) for member in self._members(cell.estimator)]
            training = self._training(cell, after=tuple(job.name for job in needed))
            for job in (*needed, training, self._evaluation(cell, after=(training.name,))):
                jobs.setdefault(job.name, job)
        return list(jobs.values())

    def _training(self, cell: Cell, after: tuple[str, ...] = ()) -> Job:
        command = [sys.executable, "-m", "foveate", "train", str(self.folder / "config.yaml")]
        command += ["--estimator", cell.estimator, "--out", str(cell.run.path), "--resume", *self._changes(cell)]
        log = self.folder / "logs" / f"{cell.name}-train.log"
        return Job(f"train {cell.name}", command, cell.run.trained_file, log, after)

    def _evaluation(self, cell: Cell, after: tuple[str, ...]) -> Job:
        command = [sys.executable, "-m", "foveate", "evaluate", str(cell.run.path), "--split", self.split]
        done = cell.run.evaluation(self.split)
        return Job(f"evaluate {cell.name}", command, done, self.folder / "logs" / f"{cell.name}-evaluate.log", after)

    def _changes(self, cell: Cell) -> list[str]:
        changes = [f"training.seed={cell.seed}", f"training.locations_per_step={self._locations(cell.estimator)}"]
        changes += [f"training.{name}={value}" for name, value in self._steps(cell.estimator).items()]
        members = [f"../{self._cell(member, cell.seed).name}" for member in self._members(cell.estimator)]
        if members:
            changes.append(f"members=[{', '.join(members)}]")
        return changes

    def _members(self, estimator: str) -> list[str]:
        return members_of(estimator, len(self.config.foveation.fields_of_view))

    def _passes(self, estimator: str) -> int:
        """Passes of one training location."""
        config = _with_estimator(self.config, estimator)
        return config.foveation.estimator.reads(len(config.foveation.fields_of_view)).passes

    def _locations(self, estimator: str) -> int:
        """Locations of a step: fewer where each costs several passes, but one of every image."""
        training = self.config.training
        per_image = training.locations_per_step // training.images_per_step
        return training.images_per_step * max(1, per_image // self._passes(estimator))

    def _steps(self, estimator: str) -> dict[str, int]:
        """Steps, and what counts in them, such that all estimators train with as many passes, whatever a step has."""
        training = self.config.training
        ratio = training.locations_per_step / (self._locations(estimator) * self._passes(estimator))
        counted = ("steps", "validate_every", "warmup_steps")
        steps, every, warmup = (round(getattr(training, name) * ratio) for name in counted)
        steps = max(1, steps)
        return {"steps": steps, "validate_every": max(1, every), "warmup_steps": min(warmup, steps - 1)}


def fitting_estimators(config: RunConfig) -> tuple[list[str], dict[str, str]]:
    """All estimators that a configuration can be trained with, but comparators, and of each other one why not."""
    fitting, others = [], {}
    for estimator in all_names(len(config.foveation.fields_of_view)):
        try:
            # A comparator needs a network of some forms, which is known when it is built: it is asked for by name.
            if not isinstance(_with_estimator(config, estimator).foveation.estimator, Joint):
                fitting.append(estimator)
        except ConfigError as error:
            others[estimator] = str(error)
    return fitting, others


def _with_estimator(config: RunConfig, estimator: str) -> RunConfig:
    values = config.tree()
    foveation = with_estimator(values["foveation"], estimator)
    return RunConfig.parse({**values, "foveation": foveation, "members": None}, source=f"estimator {estimator}")
