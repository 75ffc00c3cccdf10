"""The page of a comparison: its table, and links to the reports of its runs."""

import json

import pytest
from report_toys import Page, train_toy
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ConfigError
from foveate.reporting.comparison import ComparisonTable, Row, save_tables
from foveate.reporting.report.comparison_report import is_comparison, write_comparison_report


def evaluation(miou):
    return {
        "miou": miou,
        "classes": [{"name": "ground", "iou": miou}, {"name": "<b>rare</b>", "iou": None}],
        "passes_per_megapixel": 100.0,
        "seconds": 2.0,
        "peak_memory_mb": 900.0,
    }


TABLE = ComparisonTable(
    [
        Row.of("low", {0: evaluation(0.1), 1: evaluation(0.12)}, 10),
        Row.of("high", {0: evaluation(0.5), 1: evaluation(0.6)}, 20),
    ]
)


@pytest.fixture
def folder(tmp_path):
    save_tables(tmp_path, TABLE, {"name": "toy & more", "split": "val", "steps": 4})
    for method, miou in (("low", 0.1), ("high", None)):
        run = tmp_path / "runs" / f"{method}-seed0"
        (run / "evaluation").mkdir(parents=True)
        (run / "config.yaml").write_text("name: toy\n")
        if miou is not None:
            (run / "evaluation" / "val.json").write_text(json.dumps({"miou": miou}))
    return tmp_path


def test_the_table_and_the_plot_are_there(folder):
    report = write_comparison_report(str(folder), str(folder / "report" / "index.html"))
    text = report.path.read_text(encoding="utf-8")
    page = Page(text)
    assert report.path == folder / "report" / "index.html"
    assert {"table", "plot", "runs"} <= set(page.identities)
    assert "11.0 ± 1.4" in page.said
    assert "<b>rare</b>" in page.said
    assert "toy & more" in page.said
    assert {path.name for path in report.figures} == {"estimators.svg", "estimators.png", "cost.svg", "cost.png"}
    assert "http" not in text.replace("http-equiv", "")


def test_the_table_of_an_earlier_version_is_read(folder):
    table = folder / "comparison.json"
    rows = json.loads(table.read_text())["estimators"]
    table.write_text(json.dumps({"name": "toy", "split": "val", "methods": rows}))
    assert "11.0 ± 1.4" in Page(write_comparison_report(folder).path.read_text(encoding="utf-8")).said


def test_reports_of_runs_are_linked_once_they_are_there(folder):
    assert any("--runs" in reason for reason in write_comparison_report(folder).missing)
    page = folder / "runs/low-seed0/report/index.html"
    page.parent.mkdir()
    page.write_text("its report")
    report = write_comparison_report(folder, overwrite=True)
    links = [address for address in Page(report.path.read_text()).addresses if not address.startswith(("#", "data:"))]
    assert links == ["../runs/low-seed0/report/index.html"]
    assert (report.path.parent / links[0]).resolve() == page
    assert any("Not evaluated yet: high-seed0" in reason for reason in report.missing)


def test_a_comparison_without_results_says_so(folder):
    (folder / "comparison.json").unlink()
    (folder / "config.yaml").write_text("name: toy\n")
    assert is_comparison(folder)
    assert any("no table yet" in reason for reason in write_comparison_report(folder).missing)


def test_what_is_no_comparison_is_refused(tmp_path):
    assert not is_comparison(tmp_path)
    with pytest.raises(ConfigError, match="is not a comparison"):
        write_comparison_report(tmp_path)


def test_a_table_that_cannot_be_read_is_named(folder):
    (folder / "comparison.json").write_text("[]")
    with pytest.raises(ConfigError, match="run `foveate compare` again"):
        write_comparison_report(folder)


def test_the_command_knows_a_comparison_and_writes_the_reports_of_its_runs(tmp_path):
    save_tables(tmp_path / "all", TABLE, {"name": "toy", "split": "val", "steps": 2})
    train_toy(tmp_path, "all/runs/low-seed0", split={"val": ["b"]}, steps=2)
    options = ["--runs", "--no-evaluate", "--device", "cpu"]
    result = CliRunner().invoke(app, ["report", str(tmp_path / "all"), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    page = Page((tmp_path / "all/report/index.html").read_text(encoding="utf-8"))
    assert "../runs/low-seed0/report/index.html" in page.addresses
    assert (tmp_path / "all/runs/low-seed0/report/index.html").exists()


def test_a_notebook_shows_the_table():
    shown = TABLE._repr_html_()
    assert "<b>" not in shown
    assert "55.0 ± 7.1" in shown
