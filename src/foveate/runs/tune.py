"""Choose on validation images how a trained run spends a budget: fields of view, margins, and how they are fused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foveate.errors import ConfigError
from foveate.files import refuse_existing, write_text
from foveate.inference.planning.candidates import Candidate, candidates
from foveate.runs.evaluate import evaluate_run
from foveate.runs.evaluation_plan import SCORES_ONLY, plan_evaluation
from foveate.runs.folder import RunFolder
from foveate.runs.tuned import SLACK, TunedLooks

BUDGETS = (0.25, 0.5, 1.0, 2.0)


class Trial(NamedTuple):
    """A candidate at a budget, and how well it did.

    Attributes:
        budget: passes per megapixel that were allowed.
        candidate: the way of looking.
        miou: on the validation images, in [0, 1].
        passes_per_megapixel: what it cost.
    """

    budget: float
    candidate: Candidate
    miou: float
    passes_per_megapixel: float


def tune(
    path: Path,
    *,
    split: str = "val",
    budgets: Sequence[float] = BUDGETS,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    processes: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> list[Trial]:
    """Evaluate every way of looking that fits each budget, and note the best of each in the run's folder.

    One fixed field of view is among the candidates, with every margin that fits: what is chosen is never worse on the
    validation images than the best fixed field of view of the same network at the same cost.

    Args:
        path: the run's folder.
        split: the images to choose on; never those that are reported.
        budgets: as shares of what one fixed field of view costs, one pass a target.
        checkpoint: "best" or "last".
        device: to run on.
        processes: how many work on blocks.
        overwrite: replace an earlier choice.
        on_progress: told how much more of the work is done, in shares that add up to 1.

    Returns:
        All trials, best first within each budget.

    Raises:
        ConfigError: when no budget pays for any way of looking, or one is not above zero.
        OutputExistsError: when there is a choice already and `overwrite` is false.
    """
    folder = RunFolder(path)
    refuse_existing(folder.tuned_file, overwrite)
    jobs = _jobs(folder, split, checkpoint, budgets)
    # A candidate of one look costs the same at every budget that pays for it.
    known: dict[Candidate, Trial] = {}
    trials = []
    for budget, candidate in jobs:
        trial = known.get(candidate)
        if trial is None:
            result = evaluate_run(
                path, split, SCORES_ONLY,
                checkpoint=checkpoint, device=device, processes=processes, overrides=_overrides(budget, candidate),
            )  # fmt: skip
            trial = Trial(budget, candidate, result.scores.miou, float(result.cost["passes_per_megapixel"]))
            if candidate.is_fixed:
                known[candidate] = trial
        trials.append(trial._replace(budget=budget))
        if on_progress is not None:
            on_progress(1 / len(jobs))
    trials.sort(key=lambda trial: (trial.budget, -trial.miou))
    _save(folder, trials, split, overwrite)
    return trials


def best_of(trials: Sequence[Trial]) -> list[TunedLooks]:
    """The best trial of each budget, smallest budget first."""
    best: dict[float, Trial] = {}
    for trial in trials:
        if trial.budget not in best or trial.miou > best[trial.budget].miou:
            best[trial.budget] = trial
    return [TunedLooks(t.budget, t.candidate.looks, t.candidate.fusion, t.miou) for _, t in sorted(best.items())]


def _jobs(folder: RunFolder, split: str, checkpoint: str, budgets: Sequence[float]) -> list[tuple[float, Candidate]]:
    run = folder.load(checkpoint, torch.device("cpu"))
    images = plan_evaluation(run.config, split, SCORES_ONLY).images
    fixed = 1e6 / run.segmenter.scales.target**2
    allowed = [round(share * fixed, 3) for share in budgets]
    jobs = [
        (budget, candidate)
        for budget in allowed
        for candidate in candidates(run.segmenter.views_passed)
        if all(candidate.least_passes(image.size) <= budget * image.size.megapixels * SLACK for image in images)
    ]
    if not jobs:
        raise ConfigError(f"budgets of {list(budgets)} pay for no way of looking; the widest look alone costs more")
    return jobs


def _overrides(budget: float, candidate: Candidate) -> list[str]:
    changes: dict[str, Any] = {
        "planner": "pyramid",
        "looks": [list(look) for look in candidate.looks],
        "fusion": list(candidate.fusion),
        "budget": "all" if candidate.is_fixed else budget,
    }
    return [f"inference.{key}={json.dumps(value)}" for key, value in changes.items()]


def _save(folder: RunFolder, trials: Sequence[Trial], split: str, overwrite: bool) -> None:
    tree = {
        "split": split,
        "chosen": [choice.tree() for choice in best_of(trials)],
        "trials": [
            {
                "budget": trial.budget,
                "looks": [list(look) for look in trial.candidate.looks],
                "fusion": list(trial.candidate.fusion),
                "miou": trial.miou,
                "passes_per_megapixel": trial.passes_per_megapixel,
            }
            for trial in trials
        ],
    }
    write_text(folder.tuned_file, json.dumps(tree, indent=2) + "\n", overwrite=overwrite)
