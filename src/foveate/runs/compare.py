"""Compare methods: the same data, network and training passes, several seeds, each run in a process of its own."""

from __future__ import annotations

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
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.jobs import Job, run_jobs
from foveate.runs.methods import all_methods, members_of, with_method
from foveate.texts import read_tree

_PER_CELL = ("method", "members")


@dataclass(frozen=True, slots=True)
class Cell:
    """One method with one seed.

    Attributes:
        method: its name.
        seed: of the training.
        run: its run folder.
    """

    method: str
    seed: int
    run: RunFolder

    @property
    def name(self) -> str:
        """Name of the run folder, and of the log."""
        return self.run.path.name


class Comparison:
    """Trains and evaluates every method with every seed, in one folder.

    Args:
        config: what the methods share; settings of its estimator are used by the methods that have this estimator.
        methods: names, see `foveate.runs.methods`.
        seeds: one training of each method for each.
        folder: for runs/METHOD-seedN and logs/; one that holds a comparison of the same configuration is continued.
        split: what is evaluated; test where it holds an image, else val, when None.

    Raises:
        ConfigError: for an unknown or repeated method or seed.
        OutputExistsError: when the folder holds a comparison of another configuration.
    """

    def __init__(
        self, config: RunConfig, methods: Sequence[str], seeds: Sequence[int], folder: Path, split: str | None = None
    ) -> None:
        self.config, self.methods, self.seeds, self.folder = config, methods, seeds, folder
        for name, values in (("method", methods), ("seed", seeds)):
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"give each {name} once and at least one, got {list(values)}")
        for method in methods:
            _with_method(config, method)
        last = _last_split(config)  # also where a split is given: a missing data set fails every method
        self.split = split or last
        self._keep_config()

    @property
    def cells(self) -> list[Cell]:
        """One for each method and seed, seed by seed, so that a comparison that is stopped has whole rows."""
        return [self._cell(method, seed) for seed in self.seeds for method in self.methods]

    def run(self, slots: Sequence[dict[str, str]], on_change: Callable[[list[str], int, int], None]) -> dict[str, str]:
        """Do what is not done yet.

        Args:
            slots: for each process that runs at a time, the environment variables that give it its share.
            on_change: told the jobs that run now, how many are done, and how many there are.

        Returns:
            By name of the failed job, the end of its log.
        """
        return run_jobs(self._jobs(), slots, on_change)

    def results(self) -> dict[str, dict[int, dict[str, Any]]]:
        """The evaluations that are done: by method and seed, as `foveate evaluate` wrote them."""
        results: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in self.methods}
        for cell in self.cells:
            path = cell.run.evaluation(self.split)
            if path.exists():
                results[cell.method][cell.seed] = read_tree(
                    path, ConfigError, "remove it, and it is made again", ours=True
                )
        return results

    def training_passes(self, method: str) -> int:
        """Patches that pass through networks in one training of a method."""
        members = self._members(method)
        if members:
            return sum(self.training_passes(member) for member in members)
        return self._steps(method)["steps"] * self._locations(method) * self._passes(method)

    def _keep_config(self) -> None:
        """Save what the methods share, or see that it is what was saved."""
        path = self.folder / "config.yaml"
        shared = {key: value for key, value in self.config.tree().items() if key not in _PER_CELL}
        if not path.exists():
            write_text(path, yaml.safe_dump(shared, sort_keys=False, allow_unicode=True))
            return
        try:
            check_same_config(RunConfig.completed(read_yaml(path)), shared, list(shared))
        except CheckpointError as error:
            raise OutputExistsError(f"{self.folder} holds another comparison: {error}; or give another --out") from None

    def _cell(self, method: str, seed: int) -> Cell:
        return Cell(method, seed, RunFolder(self.folder / "runs" / f"{method}-seed{seed}"))

    def _jobs(self) -> list[Job]:
        """Training and evaluation of every cell, and of the members that an ensemble needs."""
        jobs: dict[str, Job] = {}
        for cell in self.cells:
            needed = [self._training(self._cell(member, cell.seed)) for member in self._members(cell.method)]
            training = self._training(cell, after=tuple(job.name for job in needed))
            for job in (*needed, training, self._evaluation(cell, after=(training.name,))):
                jobs.setdefault(job.name, job)
        return list(jobs.values())

    def _training(self, cell: Cell, after: tuple[str, ...] = ()) -> Job:
        command = [sys.executable, "-m", "foveate", "train", str(self.folder / "config.yaml")]
        command += ["--method", cell.method, "--out", str(cell.run.path), "--resume", *self._changes(cell)]
        log = self.folder / "logs" / f"{cell.name}-train.log"
        return Job(f"train {cell.name}", command, cell.run.trained_file, log, after)

    def _evaluation(self, cell: Cell, after: tuple[str, ...]) -> Job:
        command = [sys.executable, "-m", "foveate", "evaluate", str(cell.run.path), "--split", self.split]
        done = cell.run.evaluation(self.split)
        return Job(f"evaluate {cell.name}", command, done, self.folder / "logs" / f"{cell.name}-evaluate.log", after)

    def _changes(self, cell: Cell) -> list[str]:
        changes = [f"training.seed={cell.seed}", f"training.locations_per_step={self._locations(cell.method)}"]
        changes += [f"training.{name}={value}" for name, value in self._steps(cell.method).items()]
        members = [f"../{self._cell(member, cell.seed).name}" for member in self._members(cell.method)]
        if members:
            changes.append(f"members=[{', '.join(members)}]")
        return changes

    def _members(self, method: str) -> list[str]:
        return members_of(method, len(self.config.foveation.fields_of_view))

    def _passes(self, method: str) -> int:
        """Passes of one training location."""
        config = _with_method(self.config, method)
        return config.foveation.estimator.reads(len(config.foveation.fields_of_view)).passes

    def _locations(self, method: str) -> int:
        """Locations of a step: fewer where each costs several passes, but one of every image."""
        training = self.config.training
        per_image = training.locations_per_step // training.images_per_step
        return training.images_per_step * max(1, per_image // self._passes(method))

    def _steps(self, method: str) -> dict[str, int]:
        """Steps, and what counts in them, such that all methods train with as many passes, whatever a step has."""
        training = self.config.training
        ratio = training.locations_per_step / (self._locations(method) * self._passes(method))
        counted = ("steps", "validate_every", "warmup_steps")
        steps, every, warmup = (round(getattr(training, name) * ratio) for name in counted)
        steps = max(1, steps)
        return {"steps": steps, "validate_every": max(1, every), "warmup_steps": min(warmup, steps - 1)}


def fitting_methods(config: RunConfig) -> tuple[list[str], dict[str, str]]:
    """All methods that a configuration can be trained with, and of each other one why not."""
    fitting, others = [], {}
    for method in all_methods(len(config.foveation.fields_of_view)):
        try:
            _with_method(config, method)
            fitting.append(method)
        except ConfigError as error:
            others[method] = str(error)
    return fitting, others


def _with_method(config: RunConfig, method: str) -> RunConfig:
    return RunConfig.parse({**with_method(config.tree(), method), "members": None}, source=f"method {method}")


def _last_split(config: RunConfig) -> str:
    """The split to report: "test", or "val" for data without test images."""
    return "test" if any(sample.split == "test" for sample in load_samples(config.data)) else "val"
