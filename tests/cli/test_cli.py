"""The command line from end to end, on small files."""

import csv
import json

import numpy as np
import pytest
import rasterio
import yaml
from typer.testing import CliRunner

from foveate.cli.app import app, main
from foveate.data.readers import open_image
from foveate.errors import FoveateError, ImageReadError
from foveate.geometry import Size, Window
from toys import make_data_set, shapes, toy_config, write_config, write_image

runner = CliRunner()


def invoke(*arguments):
    return runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a data set, its configuration and a trained run."""
    root = tmp_path_factory.mktemp("workspace")
    make_data_set(root / "toy")
    config = write_config(root / "toy.yaml", toy_config(root))
    result = invoke("train", config, "--out", root / "run")
    assert result.exit_code == 0, result.output
    return root


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "info", "networks", "convert", "config", "demo"])
def test_every_command_has_help_with_examples(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"foveate {command}" in result.output


def test_train_leaves_config_checkpoints_and_metrics(workspace):
    run = workspace / "run"
    assert yaml.safe_load((run / "config.yaml").read_text())["foveation"]["estimator"]["name"] == "gumbel"
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row.get("val/miou") for row in rows)


def test_train_refuses_to_mix_runs_and_resumes(workspace):
    config = workspace / "toy.yaml"
    with pytest.raises(FoveateError, match="--resume to continue"):
        invoke("train", config, "--out", workspace / "run")
    out = workspace / "resumed"
    assert invoke("train", config, "training.steps=3", "--out", out).exit_code == 0
    result = invoke("train", config, "training.steps=6", "--out", out, "--resume")
    assert result.exit_code == 0
    assert "6" in result.output


def test_a_refused_resume_leaves_the_saved_configuration(workspace):
    saved = (workspace / "run" / "config.yaml").read_text()
    with pytest.raises(FoveateError, match="another configuration"):
        invoke("train", workspace / "toy.yaml", "training.learning_rate=0.5", "--out", workspace / "run", "--resume")
    assert (workspace / "run" / "config.yaml").read_text() == saved


def test_evaluate_writes_scores_and_cost(workspace):
    result = invoke("evaluate", workspace / "run", "--split", "val", "--device", "cpu", "--overwrite")
    assert result.exit_code == 0
    tree = json.loads((workspace / "run" / "evaluation" / "val.json").read_text())
    assert {"miou", "pixel_accuracy", "classes", "passes_per_megapixel", "seconds", "peak_memory_mb"} <= set(tree)
    assert [c["name"] for c in tree["classes"]] == ["ground", "disc"]
    assert {"iou", "dice", "precision", "recall"} <= set(tree["classes"][0])
    assert 0 <= tree["miou"] <= 1
    with pytest.raises(FoveateError, match="--overwrite"):
        invoke("evaluate", workspace / "run")


def test_predict_writes_georeferenced_rasters_and_a_preview(workspace):
    image, _ = shapes(9, 211, 133)
    transform = rasterio.Affine(0.5, 0, 100, 0, -0.5, 900)
    path = write_image(workspace / "scene.tif", image, crs="EPSG:32633", transform=transform)
    out = workspace / "predictions"
    result = invoke("predict", workspace / "run", path, "--out", out, "--device", "cpu", "--overwrite")
    assert result.exit_code == 0, result.output
    with rasterio.open(out / "scene.classes.tif") as classes:
        assert (classes.height, classes.width, classes.dtypes) == (211, 133, ("uint8",))
        assert classes.crs.to_epsg() == 32633
        assert classes.transform == transform
        assert classes.block_shapes == [(512, 512)]
        assert classes.colormap(1)[1] == (0xE0, 0xC0, 0x40, 255)
        assert classes.tags()["class_1"] == "disc"
        assert set(np.unique(classes.read(1))) <= {0, 1}
    with rasterio.open(out / "scene.fov.tif") as fov:
        assert fov.shape == (27, 17)
        assert fov.transform == rasterio.Affine(4, 0, 100, 0, -4, 900)
        values = fov.read(1)
        assert ((values >= 32) & (values <= 64)).all()
    summary = json.loads((out / "scene.json").read_text())
    assert sum(summary["class_pixels"].values()) == 211 * 133
    with open_image(out / "scene.preview.png") as preview:
        assert preview.read(Window.of(preview.size)).std() > 5
    again = invoke("predict", workspace / "run", path, "--out", out, "--device", "cpu")
    assert again.exit_code == 2
    assert "--overwrite" in " ".join(again.output.split())


def test_predict_within_a_budget(workspace):
    image, _ = shapes(9, 211, 133)
    transform, out = rasterio.Affine(0.5, 0, 100, 0, -0.5, 900), workspace / "budget"
    path = write_image(workspace / "wide.tif", image, crs="EPSG:32633", transform=transform)
    result = invoke("predict", workspace / "run", path, "--out", out, "--budget", "1500", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert 0 < json.loads((out / "wide.json").read_text())["passes_per_megapixel"] <= 1500
    with rasterio.open(out / "wide.fov.tif") as fov:
        assert (fov.read(1) >= 32).all()
    result = invoke("predict", workspace / "run", path, "--out", out, "--budget", "5", "--overwrite", "--device", "cpu")
    assert result.exit_code == 2
    assert "a budget of 0 passes for this image is below" in " ".join(result.output.split())


def test_half_of_the_passes_is_a_budget(workspace):
    image, _ = shapes(9, 256, 256)
    path, out = write_image(workspace / "half.tif", image), workspace / "half"
    result = invoke("predict", workspace / "run", path, "--out", out, "--budget", "50%", "--device", "cpu")
    assert result.exit_code == 0, result.output
    made, one_a_target = json.loads((out / "half.json").read_text())["passes_per_megapixel"], 1e6 / 32**2
    assert 0.4 * one_a_target < made <= 0.5 * one_a_target


def test_a_policy_that_hardly_chooses_is_said_by_training_prediction_and_report(workspace, monkeypatch):
    monkeypatch.setattr("foveate.reporting.passes.ALMOST_ALL", 0.0)
    run = workspace / "collapsed"
    steps = ("training.steps=2", "training.validate_every=2")
    trained = invoke("train", workspace / "toy.yaml", *steps, "--out", run)
    assert "% of the passes use one field of view" in " ".join(trained.output.split())
    path = write_image(workspace / "plain.tif", np.full((3, 96, 96), 90, np.uint8))
    predicted = " ".join(invoke("predict", run, path, "--out", workspace / "plain", "--device", "cpu").output.split())
    assert "plain.tif: 100 % of the passes use one field of view" in predicted
    assert "the policy makes hardly any choice" in predicted
    assert invoke("report", run, "--device", "cpu").exit_code == 0
    page = next(file for file in run.rglob("*.html"))
    assert "% of the passes use one field of view" in page.read_text()


@pytest.mark.parametrize("names", [("text.tif",), ("none.tif",), ("none.tif", "text.tif")])
def test_predict_of_what_are_no_images_is_a_mistake_as_in_other_commands(workspace, tmp_path, names):
    (tmp_path / "text.tif").write_text("not really")
    images = [tmp_path / name for name in names]
    assert invoke("predict", workspace / "run", *images, "--out", tmp_path, "--device", "cpu").exit_code == 2


def test_predict_goes_on_after_a_bad_image(workspace):
    bad = workspace / "bad.tif"
    bad.write_bytes(b"II*\x00 not really")
    out = workspace / "mixed"
    result = invoke("predict", workspace / "run", bad, workspace / "toy/images/a.png", "--out", out, "--device", "cpu")
    assert result.exit_code == 1
    assert "failed" in result.output
    assert (out / "a.classes.tif").is_file()
    assert not list(out.glob("*bad*"))


def test_predict_of_an_image_that_cannot_be_read_for_its_preview(workspace, monkeypatch):
    def torn(*args, **options):
        raise ImageReadError("a tile is torn")

    monkeypatch.setattr("foveate.reporting.previews.save_preview", torn)
    out = workspace / "torn"
    result = invoke("predict", workspace / "run", workspace / "toy/images/a.png", "--out", out, "--device", "cpu")
    assert result.exit_code == 0
    assert "was not drawn" in result.output
    assert "a.png was not drawn: a tile is torn" in " ".join(result.output.split())
    assert (out / "a.classes.tif").is_file()


def test_predict_refuses_images_of_one_name(workspace):
    with pytest.raises(FoveateError, match="several images are called a"):
        invoke("predict", workspace / "run", "x/a.png", "y/a.png", "--out", workspace / "never")


def test_more_bands_than_the_network_takes(workspace):
    path = write_image(workspace / "five.tif", np.zeros((5, 40, 40), np.uint8))
    result = invoke("predict", workspace / "run", path, "--out", workspace / "five", "--device", "cpu")
    assert result.exit_code == 2
    assert "has 5 bands, but the network takes 3 channels" in " ".join(result.output.split())


def test_info_says_what_reading_costs(workspace):
    result = invoke("info", workspace / "toy/images/a.png")
    assert "170 x 150" in result.output
    assert "no random access" in result.output


def test_convert_makes_a_tiled_pyramid(workspace):
    image, _ = shapes(3, 900, 1300)
    source = write_image(workspace / "large.png", image)
    assert invoke("convert", source, workspace / "large.tif").exit_code == 0
    with open_image(workspace / "large.tif") as converted:
        assert converted.random_access
        assert converted.levels[:3] == (Size(900, 1300), Size(450, 650), Size(225, 325))
        assert np.array_equal(converted.read(Window.of(converted.size)), image)
    with pytest.raises(FoveateError, match="--overwrite"):
        invoke("convert", source, workspace / "large.tif")


def test_config_prints_what_it_reads_back(workspace, tmp_path):
    result = invoke("config", workspace / "toy.yaml", "training.steps=77", "foveation.fields_of_view=[32,48]")
    tree = yaml.safe_load(result.output)
    assert tree["training"]["steps"] == 77
    assert tree["foveation"]["fields_of_view"] == [32, 48]
    (tmp_path / "again.yaml").write_text(result.output)
    assert invoke("config", tmp_path / "again.yaml").output == result.output


def test_mistakes_exit_with_2_and_a_message(workspace, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["foveate", "config", str(workspace / "toy.yaml"), "training.step=1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "did you mean 'steps'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{run}", "no.tif", "--out", "{tmp}", "--outputs", "a]b["],
        ["predict", "{run}", "no.tif", "--out", "{tmp}", "--budget", "inf"],
        ["predict", "{run}", "no.tif", "--out", "{tmp}", "--set", "inference.overlap=*a"],
        ["predict", "{run}", "no.tif", "--out", "{tmp}", "--memory", "1" + "0" * 400],
        ["evaluate", "{run}", "inference.overlap=.nan"],
        ["config", "{run}/config.yaml", "data=[[["],
        ["info", "{run}/config.yaml"],
        ["info", "name\0with zero"],
        ["info", "n" * 5000],
    ],
)
def test_odd_options_are_mistakes_with_a_message(workspace, tmp_path, monkeypatch, capsys, words):
    given = [word.format(run=workspace / "run", tmp=tmp_path) for word in words]
    monkeypatch.setattr("sys.argv", ["foveate", *given])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_checkpoint_of_another_configuration_is_refused(workspace):
    with pytest.raises(FoveateError, match=r"another configuration.*patch_size was 32, is now 16"):
        invoke("evaluate", workspace / "run", "foveation.patch_size=16", "--split", "test")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FoveateError, match="no configuration file at"):
        invoke("evaluate", tmp_path)
