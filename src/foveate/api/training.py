"""`foveate.train`, `foveate.compare` and `foveate.patches`: what needs a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from foveate import processes, reporting, runs
from foveate.api import AnyPath, Run, load
from foveate.data.datasets import PatchDataset
from foveate.errors import ConfigError
from foveate.reporting.report.comparison_report import save_comparison_figure
from foveate.runs.jobs import slots_of
from foveate.texts import listed


def init(
    folder: AnyPath, out: AnyPath | None = None, *, overrides: Sequence[str] = (), overwrite: bool = False
) -> Path:
    """Look at a folder of images and labels, and write a commented configuration to train on it.

    Args:
        folder: holds images/ and masks/ (or labels/, annotations/): masks of class ids or of colours, or polygons,
            under the names of the images.
        out: the configuration; NAME.yaml in the current folder when None.
        overrides: how files are read, such as `data.vectors.attribute=landuse`, `data.plane=3` or `data.nodata=-9999`.
        overwrite: replace an earlier one.

    Returns:
        The configuration, which `foveate.train` takes.

    Raises:
        DatasetError: when the folder holds no images with labels, or they do not make a data set.
        OutputExistsError: when a file is there and may not be replaced.
    """
    path = None if out is None else Path(out)
    return runs.init.init(Path(folder), path, overrides=listed(overrides, "overrides"), overwrite=overwrite).path


def train(
    config: AnyPath | runs.RunConfig,
    out: AnyPath | None = None,
    *,
    overrides: Sequence[str] = (),
    estimator: str | None = None,
    devices: str | int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Run:
    """Train a run and load it.

    Args:
        config: a YAML file, a data set's folder with images/ and masks/ (see `foveate.init`), or a `RunConfig`.
        out: folder of the run; runs/NAME when None.
        overrides: `key.subkey=value` changes to the configuration, such as `training.steps=200`.
        estimator: replaces that of the configuration: "fixed_1", "mixture", ...
        devices: as `--devices` of `foveate train`. Of several processes, each runs your script from its beginning up to
            here. Only the first returns and goes on with the script; the others end.
        resume: continue exactly from the last checkpoint.
        overwrite: replace an earlier run in the folder.
        progress: show a progress bar.

    Raises:
        ConfigError: when a setting is not allowed.
        DatasetError: when the files do not make a data set.
        OutputExistsError: when the folder holds a run, and neither `resume` nor `overwrite` is set.
    """
    settings = _settings(config, overrides, estimator)
    folder = runs.RunFolder(Path(out) if out is not None else Path("runs") / settings.name)
    runs.train_run(settings, folder, resume=resume, overwrite=overwrite, devices=devices, progress=progress)
    if not processes.is_first_process():
        raise SystemExit(0)
    return load(folder.path)


class ComparisonResult(NamedTuple):
    """The result of a comparison.

    Attributes:
        split: the evaluated split.
        table: one row per estimator; displays itself in a notebook. None if nothing was evaluated.
        files: tables and figure.
        failed: for each failed job, by name, the end of its log.
    """

    split: str
    table: reporting.comparison.ComparisonTable | None
    files: list[Path]
    failed: dict[str, str]


def compare(
    config: AnyPath | runs.RunConfig,
    estimators: Sequence[str] | None = None,
    out: AnyPath | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    split: str | None = None,
    overrides: Sequence[str] = (),
    devices: str = "auto",
    on_change: Callable[[list[str], int, int], None] | None = None,
) -> ComparisonResult:
    """Train and evaluate several estimators under equal conditions, and write a table of the results.

    Finished work is kept: the same call continues where it was stopped.

    Args:
        config: a YAML file or a `RunConfig`.
        estimators: their names; all that fit the configuration when None.
        out: folder; comparisons/NAME when None.
        seeds: one training of each estimator for each.
        split: the split to evaluate; when None, test if it holds an image, else val.
        overrides: `key.subkey=value` changes to the configuration.
        devices: as `--devices` of `foveate compare`.
        on_change: called with the names of the running jobs, the number finished and the number of all jobs.

    Raises:
        ConfigError: for an unknown estimator.
        OutputExistsError: when the folder holds a comparison of another configuration.
    """
    settings = _settings(config, overrides)
    chosen = listed(estimators, "estimators") if estimators else runs.compare.fitting_estimators(settings)[0]
    folder = Path(out) if out is not None else Path("comparisons") / settings.name
    comparison = runs.compare.Comparison(settings, chosen, list(seeds), folder, split)
    failed = comparison.run(slots_of(devices), on_change or (lambda *_: None))
    return ComparisonResult(comparison.split, *_saved(comparison, settings), failed)


def _saved(
    comparison: runs.compare.Comparison, settings: runs.RunConfig
) -> tuple[reporting.comparison.ComparisonTable | None, list[Path]]:
    """The table of what is evaluated so far, and the files it was written to."""
    rows = [
        reporting.comparison.Row.of(estimator, results, comparison.training_passes(estimator))
        for estimator, results in comparison.results().items()
        if results
    ]
    if not rows:
        return None, []
    table, folder = reporting.comparison.ComparisonTable(rows), comparison.folder
    about = {"name": settings.name, "split": comparison.split, "steps": settings.training.steps}
    figure = folder / "comparison.png"
    paths = reporting.comparison.save_tables(folder, table, about)
    save_comparison_figure(figure, table, f"{settings.name}, {comparison.split} images")
    return table, [*paths, figure]


def patches(
    config: AnyPath | runs.RunConfig,
    split: str = "train",
    *,
    length: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> PatchDataset:
    """A torch data set of patches of a configuration's images, for your own training loop.

    `for batch in DataLoader(foveate.patches("config.yaml"), batch_size=16): ...` gives `batch.image` (16, C, P, P),
    normalised, and `batch.label` (16, P, P).

    Args:
        config: a YAML file or a `RunConfig`; its data and foveation sections are used.
        split: "train", "val" or "test".
        length: number of patches; when None, as many as the configuration uses in training or validation.
        seed: of all draws.
        overrides: `key.subkey=value` changes to the configuration.

    Raises:
        ConfigError: for patches with a surround.
        DatasetError: when the files do not make a data set, or the split holds no image.
    """
    settings = _settings(config, overrides)
    training, looks = settings.training, settings.foveation
    if looks.surround is not None:
        raise ConfigError(
            "patches with a surround are no windows of the image with a label for each pixel; give "
            "overrides=['foveation.surround=null'] for plain ones"
        )
    trained = training.steps * training.locations_per_step
    count = length or (trained if split == "train" else training.validation_locations)
    return PatchDataset(settings.data, looks.patch_size, looks.fields_of_view, split=split, length=count, seed=seed)


def _settings(
    config: AnyPath | runs.RunConfig, overrides: Sequence[str], estimator: str | None = None
) -> runs.RunConfig:
    if isinstance(config, runs.RunConfig):
        return config.changed(listed(overrides, "overrides"), estimator)
    if Path(config).is_dir():
        config = runs.init.config_for(Path(config))[0]
    return runs.RunConfig.load(Path(config), listed(overrides, "overrides"), estimator)
