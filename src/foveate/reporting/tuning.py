"""The table of what `foveate tune` tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from rich.table import Table

from foveate.runs.tune import Trial

_SHOWN = 4


def tuning_table(title: str, trials: Sequence[Trial]) -> Table:
    """The best few trials of each budget, the chosen one bold, and the best fixed field of view.

    Args:
        title: above the table.
        trials: best first within each budget, budgets together.
    """
    table = Table(title=title, title_justify="left")
    for column in ("budget, passes/MP", "looks", "weights", "mIoU %", "passes/MP"):
        table.add_column(column, justify="left" if column in ("looks", "weights") else "right")
    for budget, group in groupby(trials, attrgetter("budget")):
        for place, trial in enumerate(_shown(list(group))):
            scores = (f"{100 * trial.miou:.1f}", f"{trial.passes_per_megapixel:.1f}")
            row = ("" if place else f"{budget:g}", str(trial.candidate), _weights(trial), *scores)
            table.add_row(*row, style=None if place else "bold")
        table.add_section()
    return table


def _weights(trial: Trial) -> str:
    """How the looks are fused; the many numbers of a fit are in the file."""
    fusion = trial.candidate.fusion
    if isinstance(fusion[0], tuple):
        return "by class"
    return ":".join(f"{weight:g}" for weight in fusion)


def _shown(trials: list[Trial]) -> list[Trial]:
    best_fixed = next((trial for trial in trials if trial.candidate.is_fixed), None)
    shown = trials[:_SHOWN]
    return shown if best_fixed is None or best_fixed in shown else [*shown, best_fixed]
