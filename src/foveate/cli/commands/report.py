"""`foveate report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Code, Device, Devices, Overwrite, ProcessCount, places

HELP = """Write one self-contained page about a run, or about a comparison of runs.

Of a run: curves of the training, scores per class, the confusion matrix, the best, median and worst image, where wide
and narrow views were chosen and how well it went there, cost, and the configuration. A run that is still training, or
was stopped, gets a page of what is there. Where no evaluation of the present weights with maps is there, the split is
evaluated. Figures are also written to RUN/report/figures as PNG and SVG.

Of a comparison: its table and plot, with links to the reports of its runs.

Examples:

    foveate report runs/idrid

    foveate report runs/idrid --split test --out idrid.html --devices cpu:4

    foveate report comparisons/idrid --runs
"""


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a comparison.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; RUN/report/index.html by default.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; val by default, test where there are no such images.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Evaluate the split where that is missing.")
    ] = True,
    runs: Annotated[bool, typer.Option("--runs", help="Of a comparison: write the reports of its runs too.")] = False,
    devices: Devices = None,
    processes: ProcessCount = 1,
    device: Device = "auto",
    overwrite: Overwrite = False,
    code: Code = None,
) -> None:
    """Report on a run."""
    from foveate.cli.console import errors, output, progress_bar
    from foveate.reporting.report import ReportOptions, write_report
    from foveate.reporting.report.comparison_report import is_comparison, run_folders, write_comparison_report

    options = ReportOptions(split, evaluate, *places(devices, device, processes), overwrite)

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
