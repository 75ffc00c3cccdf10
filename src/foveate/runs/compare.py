"""Compare estimators: the same data, network and training passes, several seeds, each run in a process of its own."""

import sys
from collections.abc import Callable, Sequence
from functools import cache
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
        self._run = cache(self._run_of)
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
    def runs(self) -> dict[tuple[str, int], RunFolder]:
        """Of each estimator and seed, seed by seed, so that a comparison that is stopped has whole rows."""
        pairs = [(estimator, seed) for seed in self.seeds for estimator in self.estimators]
        return {pair: self._run(*pair) for pair in pairs}

    def run(self, slots: Sequence[dict[str, str]], on_change: Callable[[list[str], int, int], None]) -> dict[str, str]:
        """Do what is not done yet.

        Returns:
            By name of the failed job, the end of its log.
        """
        return run_jobs(self._jobs(), slots, on_change)

    def results(self) -> dict[str, dict[int, dict[str, Any]]]:
        """The evaluations that are done: by estimator and seed, as `foveate evaluate` wrote them."""
        results: dict[str, dict[int, dict[str, Any]]] = {estimator: {} for estimator in self.estimators}
        for (estimator, seed), run in self.runs.items():
            path = run.evaluation(self.split)
            if path.exists():
                remedy = "remove it; it will be made again"
                results[estimator][seed] = read_tree(path, ConfigError, remedy, ours=True)
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

    def _run_of(self, estimator: str, seed: int) -> RunFolder:
        """The folder of a run, where an earlier version left it too, under the name that the estimator had there."""
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
        for (estimator, seed), run in self.runs.items():
            needed = [self._training(member, seed) for member in self._members(estimator)]
            training = self._training(estimator, seed, after=tuple(job.name for job in needed))
            for job in (*needed, training, self._evaluation(run, after=(training.name,))):
                jobs.setdefault(job.name, job)
        return list(jobs.values())

    def _training(self, estimator: str, seed: int, after: tuple[str, ...] = ()) -> Job:
        run = self._run(estimator, seed)
        command = [str(self.folder / "config.yaml"), "--estimator", estimator, "--out", str(run.path), "--resume"]
        return self._job("train", run, [*command, *self._changes(estimator, seed)], run.trained_file, after)

    def _evaluation(self, run: RunFolder, after: tuple[str, ...]) -> Job:
        done = run.evaluation(self.split)
        return self._job("evaluate", run, [str(run.path), "--split", self.split], done, after)

    def _job(self, what: str, run: RunFolder, arguments: list[str], done: Path, after: tuple[str, ...]) -> Job:
        command = [sys.executable, "-m", "foveate", what, *arguments]
        log = self.folder / "logs" / f"{run.path.name}-{what}.log"
        return Job(f"{what} {run.path.name}", command, done, log, after)

    def _changes(self, estimator: str, seed: int) -> list[str]:
        changes = [f"training.seed={seed}", f"training.locations_per_step={self._locations(estimator)}"]
        changes += [f"training.{name}={value}" for name, value in self._steps(estimator).items()]
        members = [f"../{self._run(member, seed).path.name}" for member in self._members(estimator)]
        return [*changes, f"members=[{', '.join(members)}]"] if members else changes

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
