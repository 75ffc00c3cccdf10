import csv
import io
import json
import math

import pytest
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ConfigError, OutputExistsError
from foveate.reporting.comparison import ComparisonTable, Row, save_tables
from foveate.reporting.report.comparison_report import save_comparison_figure
from foveate.runs.compare import Comparison
from foveate.runs.config import RunConfig
from toys import make_data_set, toy_config, write_config


def evaluation(miou, iou=0.5, passes=100.0):
    return {
        "miou": miou,
        "classes": [{"name": "ground", "iou": iou}, {"name": "rare", "iou": None}],
        "passes_per_megapixel": passes,
        "seconds": 2.0,
        "peak_memory_mb": 900.0,
    }


def row(method, *mious):
    return Row.of(method, {seed: evaluation(miou) for seed, miou in enumerate(mious)}, 10)


TABLE = ComparisonTable([row("low", 0.1, 0.11, 0.12), row("near", 0.49, 0.52, 0.5), row("best", 0.51, 0.5, 0.53)])


def test_the_best_is_bold_and_what_the_seeds_do_not_tell_from_it_is_marked():
    cells = {r.estimator: TABLE.cells(r, "**")[1] for r in TABLE.rows}
    assert cells == {"low": "11.0 ± 1.0", "near": "50.3 ± 1.5 ≈", "best": "**51.3** ± 1.5"}


def test_a_class_without_labels_has_no_best():
    assert [TABLE.cells(r, "**")[3] for r in TABLE.rows] == ["-", "-", "-"]


def test_one_seed_tells_nothing():
    table = ComparisonTable([row("a", 0.2), row("b", 0.9)])
    assert [table.cells(r, "**")[1] for r in table.rows] == ["20.0 ≈", "**90.0**"]
    assert "one seed" in table.note


def test_the_tables_hold_the_same_values(tmp_path):
    save_tables(tmp_path, TABLE, {"name": "toy"})
    lines = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    tree = json.loads((tmp_path / "comparison.json").read_text())
    assert [float(line["mIoU"]) for line in lines if line["estimator"] == "near"] == [0.49, 0.52, 0.5]
    assert tree["estimators"]["near"]["iou"]["mIoU"]["seeds"] == [0.49, 0.52, 0.5]
    assert tree["estimators"]["best"]["iou"]["mIoU"]["best"]
    assert tree["estimators"]["best"]["iou"]["rare"]["mean"] is None
    assert (tmp_path / "comparison.md").read_text().count("\n| ") == 4


def test_a_line_of_a_seed_holds_its_own_cost():
    done = {seed: {**evaluation(0.5, passes=100.0 + seed), "seconds": 2.0 + seed} for seed in range(3)}
    table = ComparisonTable([Row.of("a", done, 10)])
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert [float(line["seconds"]) for line in lines] == [2, 3, 4]
    assert [float(line["passes_per_megapixel"]) for line in lines] == [100, 101, 102]
    assert table.tree()["a"]["seconds"] == 3


def test_the_figure_is_drawn(tmp_path):
    save_comparison_figure(tmp_path / "a.png", TABLE, "toy")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.fixture
def config(tmp_path):
    make_data_set(tmp_path / "toy")
    tree = toy_config(tmp_path, steps=2, validate_every=2, locations_per_step=8)
    tree["network"] = {"architecture": "fpn", "encoder": "resnet18", "weights": None}
    return write_config(tmp_path / "toy.yaml", tree)


def test_every_method_trains_with_as_many_passes(config, tmp_path):
    settings = RunConfig.load(config)
    comparison = Comparison(settings, ["fixed_1", "gumbel_soft", "mixture", "ensemble"], [0], tmp_path / "out")
    passes = {name: comparison.training_passes(name) for name in comparison.estimators}
    assert passes == {"fixed_1": 16, "gumbel_soft": 16, "mixture": 16, "ensemble": 32}


def test_runs_of_an_earlier_version_are_found_by_what_they_trained(config, tmp_path):
    settings = RunConfig.load(config)
    runs = tmp_path / "out" / "runs"
    for name, estimator in (("mode", "mode_plain"), ("patch_1", "fixed_1"), ("mean", "mixture")):
        (runs / f"{name}-seed0").mkdir(parents=True)
        (runs / f"{name}-seed0/config.yaml").write_text(settings.changed([], estimator).to_yaml())
    comparison = Comparison(settings, ["mode_plain", "fixed_1", "gumbel"], [0], tmp_path / "out")
    assert [run.path.name for run in comparison.runs.values()] == ["mode-seed0", "patch_1-seed0", "gumbel-seed0"]
    for name in ("mode", "mean"):
        with pytest.raises(OutputExistsError, match=f"{name}-seed0 belongs to another estimator than {name}"):
            _ = Comparison(settings, [name], [0], tmp_path / "out").runs


def test_another_configuration_is_not_mixed_in_but_methods_and_seeds_may_be_added(config, tmp_path):
    Comparison(RunConfig.load(config), ["fixed_1"], [0], tmp_path / "out")
    Comparison(RunConfig.load(config), ["gumbel_soft"], [0, 1], tmp_path / "out")
    with pytest.raises(OutputExistsError, match=r"training\.steps was 2, is now 3"):
        Comparison(RunConfig.load(config, ["training.steps=3"]), ["fixed_1"], [0], tmp_path / "out")


@pytest.mark.parametrize(("methods", "seeds"), [([], [0]), (["mean", "mean"], [0]), (["mean"], [1, 1]), (["x"], [0])])
def test_what_makes_no_comparison_is_refused_before_anything_is_written(config, tmp_path, methods, seeds):
    with pytest.raises(ConfigError):
        Comparison(RunConfig.load(config), methods, seeds, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def compare(config, *options):
    command = ["compare", str(config), "--out", str(config.parent / "out"), *options]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_comparison_is_made_and_continued(config):
    options = ("--estimators", "fixed_1", "--seeds", "0", "--devices", "cpu")
    assert compare(config, *options).exit_code == 0
    run = config.parent / "out/runs/fixed_1-seed0"
    written = (run / "evaluation/test.json").stat().st_mtime_ns
    assert compare(config, *options).exit_code == 0
    assert (run / "evaluation/test.json").stat().st_mtime_ns == written
    miou = json.loads((config.parent / "out/comparison.json").read_text())["estimators"]["fixed_1"]["iou"]["mIoU"][
        "mean"
    ]
    assert math.isclose(miou, json.loads((run / "evaluation/test.json").read_text())["miou"])


def test_what_fails_is_told_with_the_end_of_its_log(config):
    result = compare(
        config, "--estimators", "fixed_1", "--seeds", "0", "--devices", "cpu", "network.encoder=resnet9000"
    )
    assert result.exit_code == 1
    assert "failed: train fixed_1-seed0: exit code 2: " in result.stderr
    assert "unknown encoder" in result.stderr
    assert not (config.parent / "out/comparison.md").exists()


@pytest.mark.slow
def test_every_method_fills_its_row(config):
    done = compare(config, "--seeds", "0,1")
    assert done.exit_code == 0
    methods = json.loads((config.parent / "out/comparison.json").read_text())["estimators"]
    assert len(methods) == 14
    assert all(len(method["seeds"]) == 2 for method in methods.values())
