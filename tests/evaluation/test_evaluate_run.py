"""Evaluation of a trained run on disk, in one process and in several."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ConfigError, DatasetError, FoveateError
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import EvaluationOptions, evaluate_run, evaluate_split
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.train import prepare_training
from toys import make_data_set, toy_config

COST = ("seconds", "megapixels_per_second", "peak_memory_mb", "peak_device_memory_mb")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    make_data_set(root / "toy")
    tree = toy_config(root, steps=2, validate_every=2)
    tree["data"]["split"] = {"train": ["a"], "val": ["b", "c"], "test": ["d"]}
    prepare_training(RunConfig.parse(tree), RunFolder(root / "run")).fit(progress=False)
    return root / "run"


def invoke(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def scores_in(tree):
    """All but what is measured with a clock."""
    return json.dumps({key: value for key, value in tree.items() if key not in COST})


def bands_of(path):
    with rasterio.open(path) as raster:
        return raster.read()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_two_processes_give_what_one_gives_and_what_it_gives_again(run, tmp_path):
    one = evaluate_run(run, options=EvaluationOptions(hausdorff=True, maps=tmp_path / "one")).tree()
    again = evaluate_run(run, options=EvaluationOptions(hausdorff=True)).tree()
    arguments = ["--processes", 2, "--hausdorff", "--maps", "--device", "cpu"]
    result = invoke(run, "--out", tmp_path / "two.json", *arguments)
    assert result.exit_code == 0, result.output
    two = json.loads((tmp_path / "two.json").read_text())
    del two["sha256"]  # the seal of the file
    assert scores_in(one) == scores_in(again) == scores_in(two)
    assert [image["name"] for image in one["images"]] == ["b", "c"]
    assert sum(image["pixels"] for image in one["images"]) == sum(c["pixels"] for c in one["classes"])
    maps = {f"{stem}.{kind}.tif" for stem in "bc" for kind in ("loss", "iou", "scales", "passes", "classes")}
    pictures = {"b.preview.png", "c.preview.png"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == maps
    assert {path.name for path in (tmp_path / "two-maps").iterdir()} == maps | pictures
    for name in maps:
        assert np.array_equal(bands_of(tmp_path / "one" / name), bands_of(tmp_path / "two-maps" / name), equal_nan=True)
    assert bands_of(tmp_path / "two-maps" / "b.preview.png").std() > 5


def test_what_is_there_is_kept(run, tmp_path):
    (tmp_path / "all-maps").mkdir()
    (tmp_path / "all-maps" / "c.loss.tif").write_text("precious")
    with pytest.raises(FoveateError, match="--overwrite"):
        invoke(run, "--out", tmp_path / "all.json", "--maps", "--device", "cpu")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["c.loss.tif"]


def test_progress_adds_up_to_one(run):
    shares = []
    evaluate_split(load_run(run), "test", on_progress=shares.append)
    assert sum(shares) == pytest.approx(1)
    assert len(shares) == 9, "170 x 150 pixels in blocks of 64"


def test_a_broken_image_is_named(run, tmp_path):
    shutil.copytree(run.parent / "toy", tmp_path / "toy")
    whole = (tmp_path / "toy/images/d.png").read_bytes()
    (tmp_path / "toy/images/d.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FoveateError, match=r"d\.png"):
        evaluate_run(run, "test", overrides=[f"data.root={tmp_path}"])


def test_mistakes_are_said_before_any_work(run):
    with pytest.raises(ConfigError, match="processes is 0"):
        evaluate_run(run, processes=0)
    with pytest.raises(ConfigError, match="allowed are train, val, test"):
        evaluate_run(run, "all", processes=2)
    with pytest.raises(DatasetError, match="no image is in the split"):
        evaluate_run(run, "test", EvaluationOptions(), overrides=["data.split.test=[]", "data.split.train=[a,d]"])
