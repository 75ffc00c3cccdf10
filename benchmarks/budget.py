"""Accuracy against passes: the trained runs of a comparison, evaluated with every budget.

Nothing is trained. A fixed scale gets the same choice of margins, so that a gain is not only one of borders, and is
looked at again with more of a margin where it is unsure, as far as a budget goes. A run of several scales first chooses
how it spends each budget on the validation images (`foveate tune`), and is then scored on the others; beside it stands
the fixed view, of the same network or networks, that the validation images prefer.
Usage: python benchmarks/budget.py COMPARISON [--estimators fixed_1,coarse_first] [--shares 0.5,1] [--processes 2]
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import torch
from matplotlib.figure import Figure
from timing import RESULTS, report

from foveate.files import written
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_run
from foveate.runs.tune import tune
from foveate.runs.tuned import KEEPS, read_tuned

# What of its windows one fixed view uses: fine steps, so that it is compared at about any passes.
FIXED_KEEPS = sorted({*KEEPS, 0.75})
PER_TARGET = ["inference.planner=per_target", "inference.overlap=0"]
COLORS = ("#009e73", "#e69f00", "#cc79a7", "#0072b2", "#d55e00", "#56b4e9", "#000000")  # of Okabe and Ito


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--estimators", default="coarse_first")
    parser.add_argument("--shares", default="0.25,0.5,1", help="budgets, of the passes of one fixed field of view")
    parser.add_argument("--split", default="test")
    parser.add_argument("--name", help="of the results; that of the comparison by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    shares = [float(share) for share in options.shares.split(",")]
    runs = [
        run
        for method in options.estimators.split(",")
        for run in sorted((options.comparison / "runs").glob(f"{method}-seed*"))
    ]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        results = pool.map(evaluated, runs, [shares] * len(runs), [options.split] * len(runs))
        found = [result for group in results for result in group]
    rows = table(found)
    name = f"budget-{options.name or options.comparison.name}"
    report(name, rows, {"split": options.split, "share": "of the passes of one fixed field of view without overlap"})
    draw(RESULTS / f"{name}.png", rows)


def evaluated(run: Path, shares: list[float], split: str) -> list[dict[str, Any]]:
    """A run with every way of looking: one fixed scale with its margins, several scales with their budgets."""
    torch.set_num_threads(1)
    config = RunConfig.load(run / "config.yaml")
    fixed = 1e6 / config.foveation.scales.target**2
    views = config.foveation.views_passed
    if len(views) == 1:
        ways = {f"keep {keep:g}": looks([(views[0], keep)]) for keep in FIXED_KEEPS}
        ways |= margins_where_unsure(views[0], config.foveation.scales.target, shares)
    else:
        affordable = tuned(run, shares)
        ways = {f"budget {share:g}": [f"inference.budget={share * fixed}"] for share in affordable}
        ways |= {f"fixed, budget {share:g}": looks(best_fixed(run, share * fixed)) for share in affordable}
        if config.foveation.has_policy:  # else "per target" passes every scale already
            ways["every scale of every target"] = looks([(view, views[0] / view) for view in views])
    ways["per target"] = PER_TARGET
    if config.foveation.estimator.name == "mixture":
        ways["per target, the two most probable scales"] = [*PER_TARGET, "foveation.estimator.top=2"]
        ways["per target, soft"] = [*PER_TARGET, "foveation.estimator.top=null"]
    found: dict[str, dict[str, Any]] = {}  # by what is changed: small budgets often buy the same
    for look, changes in ways.items():
        if str(changes) not in found:
            found[str(changes)] = scored(run, look, changes, split, fixed)
    return [found[str(changes)] | {"look": look} for look, changes in ways.items()]


def margins_where_unsure(view: int, target: int, shares: list[float]) -> dict[str, list[str]]:
    """Whole windows everywhere, and where those are unsure, the same view again with its central part alone."""
    keep = min(target / view, 0.5)
    found = {}
    for share in shares:
        if (target / view) ** 2 < share < (target / (view * keep)) ** 2:
            found[f"margin {share:g}"] = looks([(view, keep), (view, 1.0)], share * 1e6 / target**2)
    return found


def looks(chosen: list[tuple[int, float]], budget: float | str = "all") -> list[str]:
    given = [list(look) for look in chosen]
    return ["inference.planner=pyramid", f"inference.budget={budget}", f"inference.looks={given}"]


def tuned(run: Path, shares: list[float]) -> list[float]:
    """The shares that pay for any way of looking, after what is best for each is chosen on validation images."""
    path = run / "tuned.json"
    target = RunConfig.load(run / "config.yaml").foveation.scales.target
    if not path.exists():
        tune(run, budgets=shares)
    least = min(choice.budget for choice in read_tuned(path)) * target**2 / 1e6
    return [share for share in shares if share >= least - 1e-4]  # budgets are kept with three digits


def best_fixed(run: Path, budget: float) -> list[tuple[int, float]]:
    """The one look that the validation images prefer at this many passes per megapixel."""
    trials = json.loads((run / "tuned.json").read_text(encoding="utf-8"))["trials"]
    fixed = [trial for trial in trials if len(trial["looks"]) == 1 and trial["budget"] <= budget + 1e-3]
    return [tuple(look) for look in max(fixed, key=lambda trial: trial["miou"])["looks"]]


def scored(run: Path, look: str, changes: list[str], split: str, fixed: float) -> dict[str, Any]:
    result = evaluate_run(run, split, overrides=changes)
    print(run.name, look, f"{result.scores.miou:.4f}", flush=True)
    share = result.cost["passes_per_megapixel"] / fixed
    method = run.name.rpartition("-seed")[0]
    return {"method": method, "look": look, "share": share, "miou": result.scores.miou, "run": run.name}


def table(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each method and way of looking: mean and spread over seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in found:
        groups.setdefault((result["method"], result["look"]), []).append(result)
    return [
        {
            "method": method,
            "look": look,
            "share of fixed passes": mean(one["share"] for one in group),
            "mIoU %": 100 * mean(one["miou"] for one in group),
            "std": 100 * stdev(one["miou"] for one in group) if len(group) > 1 else float("nan"),
            "seeds": len(group),
        }
        for (method, look), group in groups.items()
    ]


def kind(look: str) -> str:
    """What a line of the plot shows, for people."""
    known = {
        "budget": "budget",
        "fixed,": "fixed view chosen alike",
        "keep": "margins",
        "margin": "margin where unsure",
        "per": "per target",
    }
    return known.get(look.partition(" ")[0], look)


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """mIoU against passes: a colour for each method, a mark for each way of looking, budgets joined by a line."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["method"], kind(row["look"])), []).append(row)
    colors = dict(zip(dict.fromkeys(row["method"] for row in rows), COLORS, strict=False))
    marks = dict(zip(dict.fromkeys(look for _, look in lines), "sov^DPX*", strict=False))
    for (method, look), line in lines.items():
        line.sort(key=lambda row: row["share of fixed passes"])
        shares, scores = [r["share of fixed passes"] for r in line], [r["mIoU %"] for r in line]
        spread = [0 if r["std"] != r["std"] else r["std"] for r in line]
        style: dict[str, Any] = {
            "color": colors[method],
            "marker": marks[look],
            "capsize": 2,
            "label": f"{method}, {look}",
        }
        if "fixed" in look:  # between what two of them cost there is none
            style |= {"drawstyle": "steps-post", "linestyle": ":"}
        axes.errorbar(shares, scores, yerr=spread, **style)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: f"1/{1 / x:g}" if x < 1 else f"{x:g}")
    axes.set_xlabel("passes, as a share of those of one fixed field of view")
    axes.set_ylabel("mIoU, %")
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    with written(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=130)


if __name__ == "__main__":
    main()
