"""`foveate compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Code, Overrides, Sets, joined
from foveate.runs.methods import methods_text

HELP = f"""Train and evaluate several methods alike, and write the paper's table.

Every method gets the same data, network and training passes, and every seed. Writes OUT/comparison.md, .csv,
.json and .png: IoU per class and mIoU (mean and spread over seeds), passes per megapixel, seconds and peak memory.
What is done already is kept: the same command goes on where it was stopped, and more methods or seeds can be added.

Methods: {methods_text()}. With the ending _paper, as in mean_paper, a patch's output is taken for its target whatever
its width, as the paper did.

Examples:

    foveate compare configs/idrid.yaml

    foveate compare configs/idrid.yaml training.steps=200 --methods patch_1,patch_3,mixture --seeds 0 --out short

    foveate compare configs/idrid.yaml --devices 0,1
"""


def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: Overrides = None,
    sets: Sets = None,
    methods: Annotated[str | None, typer.Option(help="Comma-separated; all that fit by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated whole numbers.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="Folder; comparisons/NAME by default.")] = None,
    split: Annotated[
        str | None, typer.Option(help="What is evaluated: train, val or test; test by default, or val without any.")
    ] = None,
    devices: Annotated[
        str,
        typer.Option(
            help="auto (every GPU, else one process a core), cpu, cpu:N for N processes, or GPUs: 0, 0,2, 0-3."
        ),
    ] = "auto",
    code: Code = None,
) -> None:
    """Compare methods."""
    from foveate.cli.console import errors, jobs_bar, output
    from foveate.runs.config import RunConfig

    settings, numbers = RunConfig.load(config, joined(overrides, sets)), _numbers(seeds)
    settings.check_files()  # before torch is loaded

    from foveate.api.training import compare as run_comparison
    from foveate.runs.compare import fitting_methods

    folder = out or Path("comparisons") / settings.name
    chosen = [name.strip() for name in methods.split(",")] if methods else None
    for name, reason in ({} if chosen else fitting_methods(settings)[1]).items():
        errors.say(f"{name} is left out; {reason}", "note", "yellow")
    with jobs_bar() as bar:
        try:
            result = run_comparison(
                settings, chosen, folder, seeds=numbers, split=split, devices=devices, on_change=bar.show
            )
        except SystemExit:
            errors.say("its trainings have ended with it; the same command goes on where it was stopped")
            raise
    if result.table is not None:
        output.print(result.table.rich(f"{settings.name} on {result.split}"))
        output.say(f"written to {', '.join(map(str, result.files))}")
        output.say(f"next: foveate report {folder} --runs")
    failed = result.failed
    for name, reason in failed.items():
        errors.say(f"{name}: {reason}", "failed", "bold red")
    if failed:
        errors.say(f"logs are in {folder / 'logs'}; the same command tries again what failed")
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    from foveate.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}; give whole numbers like 0,1,2") from None
