"""What a run folder tells: what was trained on what, how far it came, what it cost, and the evaluation shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from foveate.data import SPLITS, Sample, load_samples
from foveate.errors import ConfigError, FoveateError, ImageReadError, translated
from foveate.evaluation.maps import MapFiles
from foveate.files import write_text
from foveate.foveation.config import name_of
from foveate.reporting.report.page import number
from foveate.runs import EvaluationOptions, RunConfig, RunFolder, evaluate_run, member_folders
from foveate.texts import read_tree, sealed
from foveate.training.history import FOLDER, kept_steps, read_history

History = list[dict[str, float]]
Facts = list[tuple[str, str]]
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_LOSSES = ("cross_entropy", "dice", "focal")
MADE_FOLDER = "evaluation"  # of what is made for the report, in its own folder


@dataclass(frozen=True, slots=True)
class RunState:
    """What is there of a run."""

    run: RunFolder  # its folder
    config: RunConfig  # its resolved configuration
    history: History  # the rows of metrics.csv; empty where nothing is logged
    samples: dict[str, list[Sample]] | None  # the images of the data set by split; None where it cannot be found now
    data_problem: str  # why not; empty where it can
    maps: list[tuple[int, Path]]  # steps and files of the kept foveation maps
    members: tuple[Path, ...]  # folders of the runs an ensemble joins; empty for others

    @classmethod
    def of(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a run folder; with changes to its configuration."""
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
    def can_predict(self) -> bool:
        """Whether a segmenter can be loaded: of an ensemble every member must have ended a step."""
        names = ("last",) if self.members else ("best", "last")
        return all(any(folder.checkpoint(name).exists() for name in names) for folder in self._trained)

    @property
    def newest_weights(self) -> float:
        """When the weights an evaluation would use were written, seconds since the epoch; 0 without any."""
        files = (folder.checkpoint(name) for folder in self._trained for name in ("best", "last"))
        found = [path for path in files if path.exists()]
        best = [path for path in found if path.stem == "best"]
        return max((path.stat().st_mtime for path in best or found), default=0.0)

    @property
    def _trained(self) -> list[RunFolder]:
        return [RunFolder(folder) for folder in self.members] or [self.run]

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

    @property
    def split_counts(self) -> str:
        """How many images each split has that has any."""
        counts = {_SPLITS[split]: len(found) for split, found in (self.samples or {}).items() if found}
        return ", ".join(f"{count} {name}" for name, count in counts.items())


def _samples(config: RunConfig) -> tuple[dict[str, list[Sample]] | None, str]:
    try:
        samples = load_samples(config.data)
    except (FoveateError, OSError) as error:
        return None, str(error)
    return {split: [sample for sample in samples if sample.split == split] for split in SPLITS}, ""


@dataclass(frozen=True, slots=True)
class ShownEvaluation:
    """Scores of a split, and maps of its images."""

    split: str  # "train", "val" or "test"
    file: Path  # where the scores are
    tree: dict[str, Any]  # what is in it
    maps: Path | None  # folder of the maps; None where some are missing
    up_to_date: bool  # whether it was made after the weights

    @classmethod
    def read(cls, file: Path, state: RunState) -> Self | None:
        """An evaluation by its file, with the maps beside it; None where there is none."""
        if not file.exists():
            return None
        tree = read_tree(file, ImageReadError, "remove it, or evaluate again with --overwrite", ours=True)
        with translated(ImageReadError, f"{file} is not a result of `foveate evaluate`", "remove it"):
            names = [str(image["name"]) for image in tree["images"]]
        maps = file.with_name(f"{file.stem}-maps")
        there = [MapFiles.in_folder(maps, name) for name in names]
        files = [path for one in there for path in (one.loss, one.iou, one.scales, one.passes, one.classes)]
        up_to_date = file.stat().st_mtime >= state.newest_weights
        return cls(file.stem, file, tree, maps if all(path.exists() for path in files) else None, up_to_date)


def find_evaluation(state: RunState, split: str, folder: Path) -> ShownEvaluation | None:
    """The most useful evaluation there is: of the present weights before others, with maps before without."""
    files = (state.run.evaluation(split), folder / MADE_FOLDER / f"{split}.json")
    found = [one for one in (ShownEvaluation.read(file, state) for file in files) if one is not None]
    return max(found, key=lambda one: (one.up_to_date, one.maps is not None), default=None)


def make_evaluation(state: RunState, split: str, folder: Path, overrides: list[str], **how: Any) -> ShownEvaluation:
    """Evaluate a split with maps, into the folder of the report; see `evaluate_run`, which `how` is for."""
    # Under another name, so that no later report takes it for one of the run's own settings.
    file = folder / MADE_FOLDER / (f"{split}-changed.json" if overrides else f"{split}.json")
    maps = file.with_name(f"{split}-maps")
    options = EvaluationOptions(maps=maps, overwrite=True)
    tree = evaluate_run(state.run.path, split, options, overrides=overrides, **how).tree()
    write_text(file, sealed(tree), overwrite=True)
    return ShownEvaluation(split, file, tree, maps, up_to_date=True)


def setup_facts(state: RunState) -> dict[str, Facts]:
    """Groups of facts: data, method, training."""
    config = state.config
    data, foveation, training = config.data, config.foveation, config.training
    estimator = foveation.estimator.tree()
    options = ", ".join(f"{key} {value}" for key, value in estimator.items() if key != "name")
    wide = foveation.surround
    surround = "" if wide is None else f", with a surround {wide:g} times as wide as the field of view"
    losses = {name: weight for name, weight in training.losses.tree().items() if weight and name in _LOSSES}
    return {
        "Data": [
            ("files", _files(config)),
            ("images", state.split_counts or "not found"),
            ("classes", ", ".join(data.class_names)),
            ("channels", str(data.in_channels)),
        ],
        "Method": [
            ("estimator", f"{estimator['name']}" + (f" ({options})" if options else "")),
            ("fields of view", ", ".join(map(str, foveation.fields_of_view)) + " px"),
            ("patch", f"{foveation.patch_size} px{surround}"),
            ("overview", f"1/{foveation.overview_downsample}"),
            ("network", _network(config)),
            ("alignment", foveation.alignment),
        ],
        "Training": [
            ("steps", number(training.steps)),
            ("locations a step", f"{training.locations_per_step} from {training.images_per_step} images"),
            ("optimiser", f"{training.optimizer}, learning rate {training.learning_rate:g}, {training.schedule}"),
            ("losses", ", ".join(f"{name.replace('_', ' ')} {weight:g}" for name, weight in losses.items())),
            ("seed", str(training.seed)),
        ],
    }


def headline(state: RunState) -> str:
    """What was trained on what, in a line."""
    config = state.config
    name, counts = name_of(config.foveation.estimator), state.split_counts
    return f"{name}, {_network(config)}, on {_files(config)}" + (f" ({counts} images)" if counts else "")


def evaluation_cost(tree: Mapping[str, Any]) -> Facts:
    """What an evaluation cost, from what `foveate evaluate` wrote."""
    facts = [
        ("images", number(len(tree["images"]))),
        ("megapixels predicted", number(tree["megapixels"], 1)),
        ("passes through the network", number(tree["passes"])),
        ("passes per megapixel", number(tree["passes_per_megapixel"])),
        ("seconds", number(tree["seconds"], 1)),
        ("megapixels per second", number(tree["megapixels_per_second"], 2)),
        ("peak memory", f"{number(tree['peak_memory_mb'])} MiB"),
    ]
    device = tree.get("peak_device_memory_mb")
    return facts if device is None else [*facts, ("peak memory of the accelerator", f"{number(device)} MiB")]


def training_cost(state: RunState) -> dict[str, Facts]:
    """What the training cost so far; nothing of an ensemble, which is not trained."""
    if state.members:
        return {}
    config, done, cost = state.config, state.steps_done, state.training_cost
    reading = config.foveation.estimator.reads(len(config.foveation.fields_of_view))
    passes = done * config.training.locations_per_step * reading.passes
    facts = [("steps", number(done)), ("passes through the network", number(passes))]
    if "seconds" in cost:
        facts.append(("seconds since the last start", number(cost["seconds"], 1)))
        facts.append(("peak memory", f"{number(cost['peak_memory_mb'])} MiB"))
    return {"Training": facts}


def _network(config: RunConfig) -> str:
    values = config.network.tree()
    parts = [str(values[key]) for key in ("architecture", "encoder") if values.get(key)]
    return " with ".join(parts) or "your own network"


def _files(config: RunConfig) -> str:
    """The data set, as the configuration names it."""
    source = config.data.folder if config.data.folder is not None else config.data.manifest
    return str(source) if not isinstance(source, dict) else ", ".join(str(path) for path in source.values())
