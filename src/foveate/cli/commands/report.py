"""`foveate report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import (
    Code,
    Device,
    Devices,
    Overrides,
    Overwrite,
    ProcessCount,
    Sets,
    check_run_or_comparison,
    joined,
    places,
)

HELP = """Write one self-contained page about a run, or about a comparison of runs.

The page of a run shows training curves, scores of each class, the confusion matrix, the best, median and worst image,
the fields of view and the scores there, cost, and the configuration. It also works for a run that is still training or
was stopped. If the split was not evaluated with the current weights, it is evaluated first. Figures are also written to
RUN/report/figures, as PNG and SVG.

The page of a comparison shows its table and plot, with links to the reports of its runs.

Examples:

    foveate report runs/idrid

    foveate report runs/idrid --split test --out idrid.html --devices cpu:4

    foveate report runs/idrid inference.overlap=0.5 --out half-overlap.html

    foveate report comparisons/idrid --runs
"""


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a comparison.")],
    overrides: Overrides = None,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="HTML file (default: RUN/report/index.html).")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test (default: val if it has images, else test).")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Evaluate the split if no evaluation exists.")
    ] = True,
    runs: Annotated[bool, typer.Option("--runs", help="For a comparison: also write the reports of its runs.")] = False,
    devices: Devices = None,
    processes: ProcessCount = 1,
    device: Device = "auto",
    overwrite: Overwrite = False,
    code: Code = None,
) -> None:
    """Report on a run."""
    overrides = joined(overrides, sets)
    check_run_or_comparison(run, overrides)

    from foveate.cli.console import errors, output, progress_bar
    from foveate.reporting.report import ReportOptions, write_report
    from foveate.reporting.report.comparison_report import is_comparison, run_folders, write_comparison_report

    options = ReportOptions(split, evaluate, *places(devices, device, processes), overwrite, tuple(overrides))

    def one(folder: Path, page: Path | None) -> None:
        with progress_bar(f"report of {folder.name}") as bar:
            done = write_report(folder, page, options, say=errors.say, on_progress=bar.by)
        for reason in done.missing:
            errors.say(reason, "missing", "yellow")
        output.say(f"written to {done.path}")

    if not is_comparison(run):
        one(run, out)
        return
    for folder in run_folders(run) if runs else []:
        one(folder, None)
    output.say(f"written to {write_comparison_report(run, out, overwrite=overwrite).path}")
