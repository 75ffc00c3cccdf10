"""What training says of labels before its first step, and evaluation before its first block."""

import pytest
import yaml
from affine import Affine
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import DatasetError
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import EvaluationOptions, plan_evaluation
from toys import make_data_set, shapes, toy_config, write_image


@pytest.fixture
def workspace(tmp_path):
    make_data_set(tmp_path / "toy")
    return tmp_path


def train(workspace, **data):
    tree = toy_config(workspace, steps=1, validate_every=1)
    tree["data"] |= data
    (workspace / "toy.yaml").write_text(yaml.safe_dump(tree))
    options = ["--out", str(workspace / "run"), "--accelerator", "cpu"]
    result = CliRunner().invoke(app, ["train", str(workspace / "toy.yaml"), *options], env={"COLUMNS": "160"})
    return result, " ".join(result.output.split())


def test_the_table_of_classes_and_what_is_unusual_are_told(workspace):
    write_image(workspace / "toy/masks/c.png", shapes(2)[1] * 0)
    write_image(workspace / "toy/masks/e.png", shapes(2)[1])
    result, text = train(workspace)
    assert result.exit_code == 0, text
    before = text.split("training toy for 1 steps")[0]
    ground, disc = ((shapes(0)[1] == c).sum() + (shapes(1)[1] == c).sum() for c in (0, 1))
    for part in ("train, 2 images", "val, 1 image", "test, 1 image", f"{ground:,}", f"{disc:,}", "ignored"):
        assert part in before
    assert "note: class disc has no labelled pixel in the validation images" in before
    assert "note: masks without an image of the same name: e.png" in before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": {"test": ["d"]}}, "is left for validation"),
        ({"label_map": {1: 255}}, "set data.label_map={1: 1}"),
        ({"folder": None, "manifest": "latin1.csv"}, "latin1.csv is not in UTF-8"),
    ],
)
def test_what_is_refused_leaves_no_run(workspace, changes, said):
    (workspace / "latin1.csv").write_bytes("image,mask\nbäume.png,m.png\n".encode("latin-1"))
    result, _ = train(workspace, **changes)
    assert isinstance(result.exception, DatasetError)
    assert said in str(result.exception)
    assert not (workspace / "run").exists()


def test_evaluation_says_what_it_takes_for_granted_of_labels(workspace, caplog):
    """Only the image says where it lies."""
    place = {"crs": "EPSG:32632", "transform": Affine(1, 0, 500000, 0, -1, 5400000)}
    (workspace / "toy/images/d.png").unlink()
    write_image(workspace / "toy/images/d.tif", shapes(3)[0], **place)
    config = RunConfig.parse(toy_config(workspace))
    assert plan_evaluation(config, "val", EvaluationOptions()).samples[0].name == "c"
    assert caplog.messages == []
    plan_evaluation(config, "test", EvaluationOptions())
    assert caplog.messages == ["d: only the image has a georeference; image and mask are matched pixel by pixel"]
