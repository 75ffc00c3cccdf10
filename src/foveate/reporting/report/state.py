"""What a run folder tells: how far its training came, what it measured, and the evaluation that is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from foveate.data.manifest import Sample, load_samples
from foveate.data.sections import SPLITS
from foveate.errors import ConfigError, FoveateError, ImageReadError, reason_of
from foveate.evaluation.maps import MapFiles
from foveate.files import write_text
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import EvaluationOptions, evaluate_run
from foveate.runs.folder import RunFolder, member_folders
from foveate.texts import read_tree, sealed
from foveate.training.history import FOLDER, kept_steps, read_history

History = list[dict[str, float]]
MADE_FOLDER = "evaluation"  # of what is made for the report, in its own folder


@dataclass(frozen=True, slots=True)
class RunState:
    """What is there of a run.

    Attributes:
        run: its folder.
        config: its resolved configuration.
        history: the rows of metrics.csv; empty where nothing is logged.
        samples: the images of the data set by split; None where it cannot be found now.
        data_problem: why not; empty where it can.
        maps: steps and files of the kept foveation maps.
        members: folders of the runs an ensemble joins; empty for others.
    """

    run: RunFolder
    config: RunConfig
    history: History
    samples: dict[str, list[Sample]] | None
    data_problem: str
    maps: list[tuple[int, Path]]
    members: tuple[Path, ...]

    @classmethod
    def of(cls, path: Path, overrides: Sequence[str] = ()) -> RunState:
        """Read a run folder; with changes to its configuration.

        Raises:
            ConfigError: when this is no run.
        """
        run = RunFolder(path)
        config = RunConfig.load(run.config_file, list(overrides))
        samples, problem = _samples(config)
        members = tuple(member_folders(config, path)) if config.is_ensemble else ()
        history = read_history(path / "metrics.csv")
        return cls(run, config, history, samples, problem, kept_steps(path / FOLDER), members)

    @property
    def training_cost(self) -> dict[str, float]:
        """Seconds and peak memory of a training that is done, where they were noted."""
        if not self.run.trained_file.exists():
            return {}
        noted = read_tree(
            self.run.trained_file, ConfigError, "remove it: then the report does not say what training cost", ours=True
        )
        if "foveate" not in noted:
            raise ConfigError(f"{self.run.trained_file} is damaged: it names no version; remove it")
        costs = {key: noted[key] for key in ("seconds", "peak_memory_mb") if key in noted}
        return {key: float(cost) for key, cost in costs.items() if isinstance(cost, int | float)}

    @property
    def steps_done(self) -> int:
        """The last step that is logged; 0 where none is."""
        return max((int(row["step"]) for row in self.history), default=0)

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.run.trained_file.exists() or self.steps_done >= self.config.training.steps

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, or the last one where there is no best; None where nothing is saved yet."""
        files = (self.run.checkpoint(name) for name in ("best", "last"))
        return next((path for path in files if path.exists()), None)

    @property
    def can_predict(self) -> bool:
        """Whether a segmenter can be loaded."""
        if self.members:
            return all(RunFolder(folder).checkpoint("last").exists() for folder in self.members)
        return self.checkpoint is not None

    @property
    def newest_weights(self) -> float:
        """When the weights an evaluation would use were written, seconds since the epoch; 0 without any."""
        folders = [RunFolder(folder) for folder in self.members] or [self.run]
        files = (folder.checkpoint(name) for folder in folders for name in ("best", "last"))
        found = [path for path in files if path.exists()]
        best = [path for path in found if path.stem == "best"]
        return max((path.stat().st_mtime for path in best or found), default=0.0)

    @property
    def status(self) -> str:
        """In words."""
        done, steps = self.steps_done, self.config.training.steps
        if self.members:
            return "An ensemble: it combines the runs below and is not trained itself."
        if self.finished:
            return f"Trained for {done or steps} steps."
        if not self.history:
            return f"None of its {steps} steps is logged yet."
        written = datetime.fromtimestamp((self.run.path / "metrics.csv").stat().st_mtime).astimezone()
        return (
            f"Not finished: {done} of {steps} steps are logged, the last one at {written:%Y-%m-%d %H:%M}. It is still "
            f"training or was stopped. This page shows the results so far."
        )

    def default_split(self) -> str | None:
        """What to show: validation images where there are any, else test images; None without both.

        Of a data set that cannot be found, what was evaluated before.
        """
        if self.samples is not None:
            return next((split for split in ("val", "test") if self.samples[split]), None)
        return next((split for split in ("val", "test") if self.run.evaluation(split).exists()), None)

    def split_counts(self) -> list[tuple[str, int]]:
        """Images in each split that has any."""
        return [(split, len(self.samples[split])) for split in SPLITS if self.samples and self.samples[split]]


def series(history: Iterable[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one column, where it has values."""
    rows = [(row["step"], row[name]) for row in history if name in row]
    return [step for step, _ in rows], [value for _, value in rows]


def columns(history: Iterable[dict[str, float]], prefix: str) -> list[str]:
    """The columns that begin so, in the order in which they first have a value."""
    return list(dict.fromkeys(name for row in history for name in row if name.startswith(prefix)))


def _samples(config: RunConfig) -> tuple[dict[str, list[Sample]] | None, str]:
    try:
        samples = load_samples(config.data)
    except (FoveateError, OSError) as error:
        return None, str(error)
    return {split: [sample for sample in samples if sample.split == split] for split in SPLITS}, ""


@dataclass(frozen=True, slots=True)
class ShownEvaluation:
    """Scores of a split, and maps of its images.

    Attributes:
        split: "train", "val" or "test".
        file: where the scores are.
        tree: what is in it.
        maps: folder of the maps; None where some are missing.
        up_to_date: whether it was made after the weights.
    """

    split: str
    file: Path
    tree: dict[str, Any]
    maps: Path | None
    up_to_date: bool

    @classmethod
    def read(cls, file: Path, state: RunState) -> ShownEvaluation | None:
        """An evaluation by its file, with the maps beside it; None where there is none.

        Raises:
            ImageReadError: when the file is no evaluation.
        """
        if not file.exists():
            return None
        tree = read_tree(file, ImageReadError, "remove it, or evaluate again with --overwrite", ours=True)
        try:
            names = [str(image["name"]) for image in tree["images"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ImageReadError(
                f"{file} is not a result of `foveate evaluate` ({reason_of(error)}); remove it"
            ) from error
        maps = file.with_name(f"{file.stem}-maps")
        complete = all(_is_complete(MapFiles.in_folder(maps, name)) for name in names)
        up_to_date = file.stat().st_mtime >= state.newest_weights
        return cls(file.stem, file, tree, maps if complete else None, up_to_date)


def find_evaluation(state: RunState, split: str, folder: Path) -> ShownEvaluation | None:
    """The most useful evaluation there is: of the present weights before others, with maps before without.

    Args:
        state: of the run.
        split: "train", "val" or "test".
        folder: of the report.
    """
    files = (state.run.evaluation(split), folder / MADE_FOLDER / f"{split}.json")
    found = [one for one in (ShownEvaluation.read(file, state) for file in files) if one is not None]
    return max(found, key=lambda one: (one.up_to_date, one.maps is not None), default=None)


def make_evaluation(
    state: RunState,
    split: str,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    processes: int = 1,
    overrides: Sequence[str] = (),
    on_progress: Callable[[float], None] | None = None,
) -> ShownEvaluation:
    """Evaluate a split with maps, into the folder of the report.

    Args:
        state: of the run.
        split: "train", "val" or "test".
        folder: of the report.
        device: see `evaluate_run`.
        processes: see `evaluate_run`.
        overrides: see `evaluate_run`.
        on_progress: see `evaluate_run`.

    Raises:
        Those of `evaluate_run`.
    """
    # Under another name, so that no later report takes it for one of the run's own settings.
    file = folder / MADE_FOLDER / (f"{split}-changed.json" if overrides else f"{split}.json")
    maps = file.with_name(f"{split}-maps")
    options = EvaluationOptions(maps=maps, overwrite=True)
    evaluation = evaluate_run(
        state.run.path,
        split,
        options,
        device=device,
        overrides=list(overrides),
        processes=processes,
        on_progress=on_progress,
    )
    tree = evaluation.tree()
    write_text(file, sealed(tree), overwrite=True)
    return ShownEvaluation(split, file, tree, maps, up_to_date=True)


def _is_complete(files: MapFiles) -> bool:
    return all(path.exists() for path in (files.loss, files.iou, files.scales, files.passes, files.classes))
