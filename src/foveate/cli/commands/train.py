"""`foveate train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Overrides, Overwrite

HELP = """Train a segmenter as a configuration describes.

Writes RUN/config.yaml (resolved), RUN/checkpoints/best.ckpt and last.ckpt, RUN/metrics.csv and RUN/tensorboard.

Examples:

    foveate train configs/idrid.yaml

    foveate train configs/idrid.yaml training.steps=200 foveation.fields_of_view=[256,512,1024] --out runs/short

    foveate train configs/idrid.yaml --resume
"""


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint, exactly.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a segmenter."""
    from foveate.cli.console import errors, output, progress_bar
    from foveate.reporting.tables import facts_table, percent
    from foveate.runs.config import RunConfig
    from foveate.runs.folder import RunFolder
    from foveate.runs.train import prepare_training

    settings = RunConfig.load(config, overrides)
    run = RunFolder(out or Path("runs") / settings.name)
    with progress_bar("checking and indexing labels") as bar:
        prepared = prepare_training(settings, run, resume=resume, overwrite=overwrite, on_progress=bar.to)
    errors.print(f"training {settings.name} for {settings.training.steps} steps into {run.path}")
    result = prepared.fit()
    facts = {
        "run": run.path,
        "steps": result.steps,
        "seconds": f"{result.seconds:.1f}",
        "best validation mIoU %": percent(result.best_miou),
        "best checkpoint": result.best_path,
        "next": f"foveate evaluate {run.path}",
    }
    output.print(facts_table("Trained", facts))
