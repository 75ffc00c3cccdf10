"""How many scales of a mixture are passed is chosen when it is used, with the same weights."""

import pytest
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import CheckpointError
from foveate.runs.evaluate import evaluate_run
from toys import make_data_set, toy_config, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    make_data_set(folder / "toy")
    tree = toy_config(folder)
    tree["foveation"]["estimator"] = {"name": "mixture"}
    command = ["train", str(write_config(folder / "toy.yaml", tree)), "--out", str(folder / "run")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    return folder / "run"


def test_passes_grow_with_the_scales_that_are_passed(run):
    once, soft = (
        evaluate_run(run, "val", overrides=["inference.planner=per_target", f"foveation.estimator.top={top}"])
        for top in (1, "null")
    )
    assert soft.cost["passes_per_megapixel"] == pytest.approx(2 * once.cost["passes_per_megapixel"])


def test_what_training_used_cannot_be_changed(run):
    with pytest.raises(CheckpointError, match=r"own_window was 1\.0, is now 0"):
        evaluate_run(run, "val", overrides=["foveation.estimator.own_window=0"])
