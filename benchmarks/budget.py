"""Accuracy against passes: the trained runs of a comparison, evaluated with every planner and budget.

Nothing is trained. A fixed scale gets the same choice of margins, so that a gain is not only one of borders.
Usage: python benchmarks/budget.py COMPARISON [--methods patch_1,mixture] [--keep 1,0.5] [--processes 2]
"""

from __future__ import annotations

import argparse
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

from foveate.errors import ConfigError
from foveate.files import written
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_run

COLORS = ("#009e73", "#e69f00", "#cc79a7", "#0072b2", "#d55e00", "#56b4e9", "#000000")  # of Okabe and Ito
SHARES = (1.0, 0.5, 0.25)  # of the passes of one fixed field of view without overlap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--methods", default="mixture")
    parser.add_argument("--keep", default="1,0.5")
    parser.add_argument("--split", default="test")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    keeps = [float(keep) for keep in options.keep.split(",")]
    jobs = [
        (run, name, changes, options.split)
        for method in options.methods.split(",")
        for run in sorted((options.comparison / "runs").glob(f"{method}-seed*"))
        for name, changes in variants(RunConfig.load(run / "config.yaml"), keeps).items()
    ]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        found = [result for result in pool.map(evaluated, jobs) if result]
    rows = table(found)
    name = f"budget-{options.comparison.name}"
    report(name, rows, {"split": options.split, "share": "of the passes of one fixed field of view without overlap"})
    draw(RESULTS / f"{name}.png", rows)


def variants(config: RunConfig, keeps: list[float]) -> dict[str, list[str]]:
    """Overrides by name: as configured, and the pyramid with every margin and budget."""
    found = {"per target": ["inference.planner=per_target", "inference.overlap=0"]}
    fixed = 1e6 / config.foveation.scales.target**2
    for keep in keeps:
        pyramid = ["inference.planner=pyramid", f"inference.keep={keep}"]
        found[f"pyramid, keep {keep:g}"] = pyramid
        if len(config.foveation.views_passed) > 1:
            for share in SHARES:
                found[f"pyramid, keep {keep:g}, budget {share:g}"] = [*pyramid, f"inference.budget={share * fixed}"]
    return found


def evaluated(job: tuple[Path, str, list[str], str]) -> dict[str, Any] | None:
    run, name, changes, split = job
    torch.set_num_threads(1)
    try:
        result = evaluate_run(run, split, overrides=changes)
    except ConfigError:
        return None  # a budget below the least
    config = RunConfig.load(run / "config.yaml")
    fixed = 1e6 / config.foveation.scales.target**2
    method = run.name.rpartition("-seed")[0]
    print(run.name, name, f"{result.scores.miou:.4f}", flush=True)
    share = result.cost["passes_per_megapixel"] / fixed
    return {"method": method, "look": name, "share": share, "miou": result.scores.miou, "run": run.name}


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


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """mIoU against passes: a colour for each method, a mark for each way of looking, budgets joined by a line."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["method"], row["look"].partition(", budget")[0]), []).append(row)
    colors = dict(zip(dict.fromkeys(row["method"] for row in rows), COLORS, strict=False))
    marks = dict(zip(dict.fromkeys(look for _, look in lines), "sov^D", strict=False))
    for (method, look), line in lines.items():
        line.sort(key=lambda row: row["share of fixed passes"])
        shares, scores = [r["share of fixed passes"] for r in line], [r["mIoU %"] for r in line]
        spread = [0 if r["std"] != r["std"] else r["std"] for r in line]
        style = {"color": colors[method], "marker": marks[look], "capsize": 2, "label": f"{method}, {look}"}
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
