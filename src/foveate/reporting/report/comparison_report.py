"""The figure of a comparison, and its page: table and plot, with links to the reports of its runs."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foveate.config_base import read_yaml
from foveate.errors import ConfigError, translated
from foveate.files import refuse_existing, written
from foveate.reporting.comparison import COST, MEAN, SAME, TABLE, ComparisonTable, Row
from foveate.reporting.panels import new_figure
from foveate.reporting.report import page
from foveate.texts import read_tree

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
_LEARNED, _BASELINE, _ENSEMBLE = "#0072b2", "#7f7f7f", "#d55e00"
_BASELINES = ("random", "average")


def save_comparison_figure(path: Path, table: ComparisonTable, title: str) -> None:
    """Write a PNG or SVG; it follows from the runs, so an earlier one is replaced."""
    figure = new_figure(11, max(3.6, 1.6 + 0.36 * len(table.rows)))
    by_estimator, by_cost = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    _draw_estimators(by_estimator, table)
    _draw_cost(by_cost, table)
    with written(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=140)


def _draw_estimators(axes: Any, table: ComparisonTable) -> None:
    """The mIoU of every estimator, best at the top: every seed a dot, the mean a bar."""
    names = []
    for place, row in enumerate(_worst_first(table)):
        values = [100 * value for value in row.scores[MEAN]]
        axes.plot(values, [place] * len(values), "o", color=_color(row), alpha=0.35, markersize=6, mew=0)
        axes.plot([100 * row.mean(MEAN)], [place], "|", color=_color(row), markersize=18, mew=2.5)
        mark = " (best)" if table.is_best(row, MEAN) else f" {SAME}" if table.is_within_noise(row, MEAN) else ""
        names.append(row.estimator + mark)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("mIoU, % (dots: seeds, bar: mean;\n≈ no significant difference)")
    _tidy(axes)


def _draw_cost(axes: Any, table: ComparisonTable) -> None:
    """The mean mIoU of every estimator against its passes per megapixel."""
    rows = _worst_first(table)[::-1]
    widest, height = max(row.cost[COST[0]] for row in rows), max(1.0, 100 * (rows[0].mean(MEAN) - rows[-1].mean(MEAN)))
    drawn, named = Counter[int](), list[tuple[float, float]]()
    for row in rows:
        x, y = row.cost[COST[0]], 100 * row.mean(MEAN)
        turn = drawn[round(x)]
        drawn[round(x)] += 1
        # A little to the side in turn, or equal values would hide each other; all names are in the other part.
        axes.plot([x + (0, 0.012, -0.012)[turn % 3] * widest], [y], "o", color=_color(row), markersize=6, mew=0)
        # Best first; a name that would run into one before it is in the other part only.
        free = all(abs(x / widest - left) > 0.22 or abs(y / height - low) > 0.09 for left, low in named)
        if turn == 0 and free:
            named.append((x / widest, y / height))
            above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            axes.annotate(row.estimator, (x, y), **above)
    axes.set_xlabel("passes per megapixel (at equal cost, only the best is named)")
    axes.set_ylabel("mIoU, %")
    axes.margins(x=0.2, y=0.12)
    axes.set_xlim(left=0)
    _tidy(axes)


def _worst_first(table: ComparisonTable) -> list[Row]:
    return sorted(table.rows, key=lambda row: row.mean(MEAN))


def _color(row: Row) -> str:
    if row.estimator == "ensemble":
        return _ENSEMBLE
    return _BASELINE if row.estimator.startswith("fixed_") or row.estimator in _BASELINES else _LEARNED


def _tidy(axes: Any) -> None:
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def is_comparison(folder: Path) -> bool:
    """Whether a folder was made by `foveate compare`, finished or not."""
    return (folder / TABLE).is_file() or ((folder / "runs").is_dir() and (folder / "config.yaml").is_file())


def run_folders(folder: Path) -> list[Path]:
    """The run folders of a comparison, by name."""
    return sorted(path.parent for path in (folder / "runs").glob("*/config.yaml"))


def write_comparison_report(
    folder: Path | str, out: Path | str | None = None, *, overwrite: bool = False
) -> page.Report:
    """Write the page of a comparison, of the table that `foveate compare` wrote last.

    Args:
        folder: of the comparison.
        out: the page; page.FOLDER/report/index.html when None.
        overwrite: replace an existing page.

    Raises:
        ConfigError: when this is no comparison, or its table cannot be read.
        OutputExistsError: when the page exists and may not be replaced.
        OutputWriteError: when it cannot be written.
    """
    folder = Path(folder)
    if not is_comparison(folder):
        raise ConfigError(f"{folder} is not a comparison; give a folder that `foveate compare` wrote")
    path = Path(out) if out else page.page_of(folder)
    refuse_existing(path, overwrite, [".html", ".htm"])
    tree, figures = _tree(folder), page.FigureFolder(folder / page.FOLDER / page.FIGURES)
    table = ComparisonTable([Row.read(estimator, values) for estimator, values in tree.get("estimators", {}).items()])
    runs = list(_links(folder, tree.get("split", "test"), path))
    missing = list(_missing(tree, runs))
    values = {
        "title": str(tree["name"]), "split": tree.get("split"), "steps": tree.get("steps"), "missing": missing,
        "table": table, "mean": MEAN, "charts": _charts(table, figures) if table.rows else [], "runs": runs,
    }  # fmt: skip
    page.write_page(path, "comparison.html", values, overwrite=overwrite)
    return page.Report(path, tuple(figures.files), tuple(missing))


def _tree(folder: Path) -> dict[str, Any]:
    file = folder / TABLE
    if not file.exists():
        return {"name": read_yaml(folder / "config.yaml").get("name", folder.name)}
    tree = read_tree(file, ConfigError, "run `foveate compare` again", ours=True)
    with translated(ConfigError, f"{file} is not a result of `foveate compare`", "run it again"):
        table = tree["estimators"] if "estimators" in tree else tree["methods"]  # of earlier versions
        tree |= {"name": tree.get("name", folder.name), "estimators": dict(table)}
    return tree


def _links(folder: Path, split: str, path: Path) -> Iterator[dict[str, Any]]:
    """Name, mIoU in [0, 1], and address of the report of each run; None where that is not there."""
    for run in run_folders(folder):
        scores = run / "evaluation" / f"{split}.json"
        advice = "evaluate again with --overwrite"
        miou = read_tree(scores, ConfigError, advice, ours=True).get("miou") if scores.exists() else None
        yield {"name": run.name, "miou": miou, "page": page.link_to(page.page_of(run), path)}


def _missing(tree: Mapping[str, Any], runs: list[dict[str, Any]]) -> Iterator[str]:
    if "estimators" not in tree:
        yield "There is no table yet, because nothing is evaluated. Repeat foveate compare to continue."
    without = [run["name"] for run in runs if run["miou"] is None]
    if without:
        yield f"Not evaluated yet: {', '.join(without)}."
    if any(run["page"] is None for run in runs):
        yield "Runs without a link have no report yet. foveate report --runs writes them."


@page.style()
def _charts(table: ComparisonTable, figures: page.FigureFolder) -> list[page.Chart]:
    best = max(table.rows, key=lambda row: -1.0 if math.isnan(row.mean(MEAN)) else row.mean(MEAN))
    said = f"Best: {best.estimator} with a mean mIoU of {100 * best.mean(MEAN):.1f} percent."
    estimators, cost = new_figure(5.2, 1.0 + 0.32 * len(table.rows)).subplots(), new_figure(5.2, 3.4).subplots()
    _draw_estimators(estimators, table)
    _draw_cost(cost, table)
    estimators.set_ylim(-0.6, len(table.rows) - 0.4)
    cost.set_xlim(right=1.15 * max(row.cost["passes_per_megapixel"] for row in table.rows))
    return [
        figures.chart("estimators", "mIoU by estimator", said, estimators),
        figures.chart("cost", "mIoU against cost", said, cost),
    ]
