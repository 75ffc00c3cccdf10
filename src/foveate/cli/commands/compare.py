"""`foveate compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Code, Overrides, Sets, joined, refuse_method

HELP = """Train and evaluate several estimators under equal conditions, and write the table of the paper.

Every estimator gets the same data, network and number of training passes, with each seed. Results are
OUT/comparison.md, .csv, .json and .png: IoU per class and mIoU (mean and standard deviation over the seeds), passes per
megapixel, seconds and peak memory. Finished work is kept: repeat the command to continue, also with more estimators or
seeds.

Estimators: fixed_1 (the narrowest field of view) to fixed_S, random, average, ensemble, mean, mode, mode_plain, gumbel,
gumbel_soft, score_function, mixture, coarse_first, cascade, glnet, squeezed. The ending _paper, as in mean_paper,
selects the paper's alignment, which takes the whole output of a patch as the prediction of its target.

Examples:

    foveate compare configs/idrid.yaml

    foveate compare configs/idrid.yaml training.steps=200 --estimators fixed_1,fixed_3,mixture --seeds 0 --out short

    foveate compare configs/idrid.yaml --devices 0,1
"""


def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: Overrides = None,
    sets: Sets = None,
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
    code: Code = None,
) -> None:
    """Compare estimators."""
    from foveate.cli.console import errors, jobs_bar, output
    from foveate.runs.config import RunConfig

    refuse_method("--methods", methods, "--estimators")
    settings, numbers = RunConfig.load(config, joined(overrides, sets)), _numbers(seeds)
    settings.check_files()  # before torch is loaded

    from foveate.api.training import compare as run_comparison
    from foveate.runs.compare import fitting_estimators

    folder = out or Path("comparisons") / settings.name
    chosen = [name.strip() for name in estimators.split(",")] if estimators else None
    for name, reason in ({} if chosen else fitting_estimators(settings)[1]).items():
        errors.say(f"{name} is left out: {reason}", "note", "yellow")
    with jobs_bar() as bar:
        try:
            result = run_comparison(
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
    from foveate.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}; give whole numbers like 0,1,2") from None
