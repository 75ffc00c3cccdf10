"""What measures: `foveate evaluate` and `tune` a trained run, `compare` several estimators, `demo` all on the Earth."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import foveate
from foveate import reporting, runs
from foveate.cli import terminal
from foveate.cli.terminal import errors, jobs_bar, output, progress_bar
from foveate.errors import ConfigError
from foveate.files import refuse_existing


def evaluate(
    run: terminal.RunFolder,
    overrides: terminal.Overrides = None,
    sets: terminal.Sets = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    out: Annotated[Path | None, typer.Option(help="JSON file (default: RUN/evaluation/SPLIT.json).")] = None,
    hausdorff: Annotated[
        bool, typer.Option("--hausdorff", help="Add the 95 % Hausdorff distance of every class.")
    ] = False,
    maps: Annotated[
        bool | None,
        typer.Option("--maps/--no-maps", help="Also draw the maps as pictures; or write no maps at all."),
    ] = None,
    devices: terminal.Devices = None,
    processes: terminal.ProcessCount = 1,
    checkpoint: terminal.Checkpoint = "best",
    device: terminal.Device = "auto",
    overwrite: terminal.Overwrite = False,
    code: terminal.Code = None,
) -> None:
    """Evaluate a trained run on the whole images of a split.

    Results are in RUN/evaluation/SPLIT.json: mIoU, pixel accuracy, IoU, Dice, precision and recall per class, the
    scores of each image, passes per megapixel, seconds and peak memory. Classes without a labelled pixel do not
    enter the means; they are listed by name. RUN/evaluation/SPLIT-maps/ holds loss, IoU, passes and scale
    probabilities per cell, for `foveate report`.

    Examples:

        foveate evaluate runs/idrid

        foveate evaluate runs/idrid --split test inference.overlap=0.5 --out half-overlap.json

        foveate evaluate runs/idrid --hausdorff --maps --devices cpu:4
    """
    overrides = terminal.joined(overrides, sets)
    terminal.check_run(run, overrides, data=True)

    folder, how = runs.RunFolder(run), terminal.loading(checkpoint, overrides, devices, device, processes)
    path = out or folder.evaluation(split)
    refuse_existing(path, overwrite, [".json"])
    maps_folder = path.with_name(f"{path.stem}-maps") if maps is not False else None
    config = folder.configured(overrides)
    if note := folder.note_of_tuning(config):
        errors.say(note, "note", "yellow")
    with progress_bar(f"evaluating {split}") as bar:
        options = runs.EvaluationOptions(hausdorff, maps_folder, overwrite)
        evaluation = runs.evaluate_run(run, split, options, **how, on_progress=bar.by)
    evaluation.write(path, overwrite=overwrite)
    output.print(reporting.tables.evaluation_table(f"{run} on {split}", evaluation))
    output.say(f"written to {path}")
    if maps_folder is not None and maps:
        with progress_bar("drawing maps") as bar:
            reporting.previews.save_map_previews(config, split, maps_folder, overwrite=overwrite, on_progress=bar.by)
        output.say(f"maps are in {maps_folder}")


def tune(
    run: terminal.RunFolder,
    overrides: terminal.Overrides = None,
    sets: terminal.Sets = None,
    split: Annotated[str, typer.Option(help="Split whose images are used: val, train or test.")] = "val",
    budgets: Annotated[
        str, typer.Option(help="Budgets, as shares of the cost of one fixed field of view.")
    ] = "0.125,0.25,0.5,0.75,1,1.5,2,4",
    tta: Annotated[
        str, typer.Option(metavar="NAMES", help="Test-time augmentations to try too: flips, d4, or flips,d4.")
    ] = "",
    devices: terminal.Devices = None,
    processes: terminal.ProcessCount = 1,
    checkpoint: terminal.Checkpoint = "best",
    device: terminal.Device = "auto",
    overwrite: terminal.Overwrite = False,
    code: terminal.Code = None,
) -> None:
    """Choose on the validation images how a trained run spends a budget of passes.

    For each budget this tries one fixed field of view (whole windows, or their central three quarters or half), and
    closer looks where the wide look is unsure. It keeps the best in RUN/tuned.json, and `foveate predict` and
    `foveate evaluate` use it. On the validation images the choice is never worse than one fixed field of view.

    Examples:

        foveate tune runs/mine

        foveate tune runs/mine --budgets 0.5,1 --devices cpu:4

        foveate tune runs/mine --tta flips,d4
    """
    shares, ttas = _shares(budgets), _augmentations(tta)
    overrides = terminal.joined(overrides, sets)
    terminal.check_run(run, overrides, data=True)

    how = terminal.loading(checkpoint, overrides, devices, device, processes)
    with progress_bar(f"trying on {split}") as bar:
        trials = runs.tune.tune(
            run, split=split, budgets=shares, ttas=ttas, overwrite=overwrite, on_progress=bar.by, **how
        )
    output.print(reporting.tables.tuning_table(f"{run} on {split}", trials))
    output.say(f"written to {runs.RunFolder(run).tuned_file}; next: foveate predict {run} IMAGE --budget fixed")


def _augmentations(text: str) -> list[Any]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not set(names) <= {"flips", "d4"}:
        raise typer.BadParameter(f"--tta {text!r}: give flips, d4, or flips,d4")
    return names


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or min(shares) <= 0:
        raise typer.BadParameter(f"--budgets {text!r}: give numbers above zero, for example 0.5,1")
    return shares


def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: terminal.Overrides = None,
    sets: terminal.Sets = None,
    estimators: Annotated[
        str | None, typer.Option(help="Estimators, separated by commas (default: all that fit).")
    ] = None,
    methods: Annotated[str | None, typer.Option(hidden=True)] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="Folder (default: comparisons/NAME).")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to evaluate: train, val or test (default: test if there is one, else val)."),
    ] = None,
    devices: Annotated[
        str,
        typer.Option(help="auto (every GPU, or one process per core), cpu, cpu:N (N processes), or GPUs: 0, 0,2, 0-3."),
    ] = "auto",
    code: terminal.Code = None,
) -> None:
    """Train and evaluate several estimators under equal conditions, and write the table of the paper.

    Every estimator gets the same data, network and number of training passes, with each seed. Results are
    OUT/comparison.md, .csv, .json and .png: IoU per class and mIoU (mean and standard deviation over the seeds),
    passes per megapixel, seconds and peak memory. Finished work is kept: repeat the command to continue, also with
    more estimators or seeds.

    Estimators: fixed_1 (the narrowest field of view) to fixed_S, random, average, ensemble, mean, mode, mode_plain,
    gumbel, gumbel_soft, score_function, mixture, coarse_first, cascade, glnet. The ending _paper, as in mean_paper,
    selects the paper's alignment, which takes the whole output of a patch as the prediction of its target. The ending
    _surround, as in coarse_first_surround, gives patches a rim that shows their surroundings, squeezed.

    Examples:

        foveate compare configs/idrid.yaml

        foveate compare configs/idrid.yaml training.steps=200 --estimators fixed_1,fixed_3,mixture --seeds 0 --out short

        foveate compare configs/idrid.yaml --devices 0,1
    """
    terminal.refuse_method("--methods", methods, "--estimators")
    settings, numbers = foveate.RunConfig.load(config, terminal.joined(overrides, sets)), _numbers(seeds)
    settings.check_files()  # before torch is loaded

    folder = out or Path("comparisons") / settings.name
    chosen = [name.strip() for name in estimators.split(",")] if estimators else None
    for name, reason in ({} if chosen else runs.compare.fitting_estimators(settings)[1]).items():
        errors.say(f"{name} is left out: {reason}", "note", "yellow")
    with jobs_bar() as bar:
        try:
            result = foveate.compare(
                settings, chosen, folder, seeds=numbers, split=split, devices=devices, on_change=bar.show
            )
        except SystemExit:
            errors.say("the trainings of this comparison were stopped too; repeat the command to continue")
            raise
    if result.table is not None:
        output.print(result.table.rich(f"{settings.name} on {result.split}"))
        output.say(f"written to {', '.join(map(str, result.files))}")
        output.say(f"next: foveate report {folder} --runs")
    failed = result.failed
    for name, reason in failed.items():
        errors.say(f"{name}: {reason}", "failed", "bold red")
    if failed:
        errors.say(f"logs are in {folder / 'logs'}; repeat the command to try the failed runs again")
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}; give whole numbers like 0,1,2") from None


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs, predictions and pictures.")] = Path("demo-output"),
    change: terminal.Changes = None,
    compare: Annotated[bool, typer.Option(help="Also train and evaluate every fixed field of view.")] = True,
    minutes: Annotated[float, typer.Option(help="Time limit; comparisons that would exceed it are left out.")] = 6.0,
    overwrite: terminal.Overwrite = False,
) -> None:
    """Segment the whole Earth into sea, land and lakes, with data that pip installs (`foveate[demo]`).

    The demonstration trains on the Americas, evaluates on the rest of the world, and predicts all 14.6 megapixels.
    Every fixed field of view is trained for as many steps and evaluated too, as far as --minutes allows. This takes
    a few minutes on two cores. It writes a table, pictures and all figures.

    Examples:

        foveate demo

        foveate demo --out earth --no-compare
    """
    from foveate.demo import run_demo

    refuse_existing(out / "results.json", overwrite)
    start = time.monotonic()
    result = run_demo(out, errors.say, overrides=change, compare=compare, minutes=minutes)
    output.print(
        reporting.tables.comparison_table("Everything outside the Americas, never seen in training", result.evaluations)
    )
    for path in (*result.pictures, result.results):
        output.say(f"written: {path}")
    output.say(f"done in {time.monotonic() - start:.0f} s")
