"""`write_comparison_report`: the table and plot of a comparison, with links to the reports of its runs."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foveate.config_base import read_yaml
from foveate.errors import ConfigError
from foveate.files import refuse_existing
from foveate.reporting.comparison import COST, MEAN, ComparisonTable, Row, draw_cost, draw_estimators
from foveate.reporting.panels import new_figure
from foveate.reporting.report import FIGURES, FOLDER, page_of
from foveate.reporting.report.page import Chart, FigureFolder, Report, link_to, style, write_page
from foveate.texts import read_tree

_TABLE = "comparison.json"


def is_comparison(folder: Path) -> bool:
    """Whether a folder was made by `foveate compare`, finished or not."""
    return (folder / _TABLE).is_file() or ((folder / "runs").is_dir() and (folder / "config.yaml").is_file())


def run_folders(folder: Path) -> list[Path]:
    """The run folders of a comparison, by name."""
    return sorted(path.parent for path in (folder / "runs").glob("*/config.yaml"))


def write_comparison_report(folder: Path | str, out: Path | None = None, *, overwrite: bool = False) -> Report:
    """Write the page of a comparison, of the table that `foveate compare` wrote last.

    Args:
        folder: of the comparison.
        out: the page; FOLDER/report/index.html when None.
        overwrite: replace an existing page.

    Raises:
        ConfigError: when this is no comparison, or its table cannot be read.
        OutputExistsError: when the page exists and may not be replaced.
        OutputWriteError: when it cannot be written.
    """
    folder = Path(folder)
    if not is_comparison(folder):
        raise ConfigError(f"{folder} is not a comparison; give a folder that `foveate compare` wrote")
    path = out or page_of(folder)
    refuse_existing(path, overwrite)
    tree, figures = _tree(folder), FigureFolder(folder / FOLDER / FIGURES)
    table = ComparisonTable([_row(estimator, values) for estimator, values in tree.get("estimators", {}).items()])
    runs = list(_links(folder, tree.get("split", "test"), path))
    missing = _missing(tree, runs)
    values = {
        "title": str(tree["name"]), "split": tree.get("split"), "steps": tree.get("steps"), "missing": missing,
        "table": table, "mean": MEAN, "charts": _charts(table, figures) if table.rows else [], "runs": runs,
    }  # fmt: skip
    write_page(path, "comparison.html", values, overwrite=overwrite)
    return Report(path, tuple(figures.files), tuple(missing))


def _tree(folder: Path) -> dict[str, Any]:
    file = folder / _TABLE
    if not file.exists():
        return {"name": read_yaml(folder / "config.yaml").get("name", folder.name)}
    tree = read_tree(file, ConfigError, "run `foveate compare` again", ours=True)
    try:
        table = tree["estimators"] if "estimators" in tree else tree["methods"]  # of earlier versions
        tree["name"], tree["estimators"] = tree.get("name", folder.name), dict(table)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not a result of `foveate compare` ({error!r}); run it again") from error
    return tree


def _row(estimator: str, values: Mapping[str, Any]) -> Row:
    scores = {
        column: [math.nan if value is None else float(value) for value in measured["seeds"]]
        for column, measured in values["iou"].items()
    }
    costs = {name: [float(values[name])] for name in COST}  # of all seeds
    return Row(estimator, tuple(values["seeds"]), scores, costs, int(values["training_passes"]))


def _links(folder: Path, split: str, page: Path) -> Iterator[dict[str, Any]]:
    """Name, mIoU in [0, 1], and address of the report of each run; None where that is not there."""
    for run in run_folders(folder):
        scores = run / "evaluation" / f"{split}.json"
        advice = "evaluate again with --overwrite"
        miou = read_tree(scores, ConfigError, advice, ours=True).get("miou") if scores.exists() else None
        yield {"name": run.name, "miou": miou, "page": link_to(page_of(run), page)}


def _missing(tree: Mapping[str, Any], runs: list[dict[str, Any]]) -> list[str]:
    missing = []
    if "estimators" not in tree:
        missing.append("There is no table yet, because nothing is evaluated. Repeat foveate compare to continue.")
    without = [run["name"] for run in runs if run["miou"] is None]
    if without:
        missing.append(f"Not evaluated yet: {', '.join(without)}.")
    if any(run["page"] is None for run in runs):
        missing.append("Runs without a link have no report yet. foveate report --runs writes them.")
    return missing


def _charts(table: ComparisonTable, figures: FigureFolder) -> list[Chart]:
    best = max(table.rows, key=lambda row: -1.0 if math.isnan(row.mean(MEAN)) else row.mean(MEAN))
    said = f"Best: {best.estimator} with a mean mIoU of {100 * best.mean(MEAN):.1f} percent."
    with style():
        by_estimator, by_cost = new_figure(5.2, 1.0 + 0.32 * len(table.rows)), new_figure(5.2, 3.4)
        estimators, cost = by_estimator.subplots(), by_cost.subplots()
        draw_estimators(estimators, table)
        draw_cost(cost, table)
        estimators.set_ylim(-0.6, len(table.rows) - 0.4)
        cost.set_xlim(right=1.15 * max(row.cost["passes_per_megapixel"] for row in table.rows))
    return [
        figures.chart("estimators", "mIoU by estimator", said, by_estimator),
        figures.chart("cost", "mIoU against cost", said, by_cost),
    ]
