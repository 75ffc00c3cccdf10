"""`foveate evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Checkpoint, Device, Overrides, Overwrite, RunFolder, torch_device

HELP = """Evaluate a trained run on whole images of a split.

Writes RUN/evaluation/SPLIT.json: mIoU, pixel accuracy, IoU, Dice, precision and recall per class, passes per
megapixel, seconds and peak memory. Classes without a labelled pixel are left out of the means, and named.

Examples:

    foveate evaluate runs/idrid

    foveate evaluate runs/idrid --split test inference.overlap=0.5 --out half-overlap.json
"""


def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    out: Annotated[Path | None, typer.Option(help="JSON file; RUN/evaluation/SPLIT.json by default.")] = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Evaluate a trained run."""
    import json

    from foveate.cli.console import output, progress_bar
    from foveate.files import refuse_existing, write_text
    from foveate.reporting.tables import evaluation_table
    from foveate.runs.evaluate import evaluate_split
    from foveate.runs.folder import RunFolder

    folder = RunFolder(run)
    path = out or folder.evaluation(split)
    refuse_existing(path, overwrite)
    trained = folder.load(checkpoint, torch_device(device), overrides)
    with progress_bar(f"evaluating {split}") as bar:
        evaluation = evaluate_split(trained, split, on_progress=bar.by)
    write_text(path, json.dumps(evaluation.tree(), indent=2) + "\n", overwrite=overwrite)
    output.print(evaluation_table(f"{run} on {split}", evaluation))
    output.print(f"written to {path}")
