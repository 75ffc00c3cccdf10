"""Fields of view as lengths: in a configuration, and from training to prediction."""

import numpy as np
import pytest
import yaml

from foveate.config_base import ConfigTree
from foveate.data.readers import open_image
from foveate.data.readers.gdal import open_dataset
from foveate.errors import ConfigError
from foveate.foveation.config import FoveationConfig
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_split
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.predict import predict
from foveate.runs.train import prepare_training
from toys import shapes, toy_config, write_config, write_image


def config(views, patch=32, **data) -> ConfigTree:
    tree = toy_config(".")
    tree["foveation"] |= {"fields_of_view": views, "patch_size": patch}
    tree["data"] |= data
    return tree


@pytest.mark.parametrize(
    ("views", "data", "pixels", "size"),
    [
        (["16 um", "64 um"], {"pixel_size": "0.5 um"}, (32, 128), "0.5 um"),
        (["16 um", "0.064 mm"], {}, (32, 128), "0.5 um"),
        (["64000 nm", "16 µm"], {}, None, None),
        ([32, 64], {}, (32, 64), None),
        ([32, 64], {"pixel_size": "1 m"}, (32, 64), "1 m"),
    ],
)
def test_resolved_and_saved_as_pixels(views, data, pixels, size):
    if pixels is None:
        with pytest.raises(ConfigError, match="ascending"):
            RunConfig.parse(config(views, **data))
        return
    found = RunConfig.parse(config(views, **data))
    assert found.foveation.fields_of_view == pixels
    assert found.data.pixel_size == size
    assert RunConfig.parse(yaml.safe_load(found.to_yaml())) == found


def test_rounding_is_told():
    with pytest.warns(UserWarning, match=r"16\.4 um is 16\.40 pixels of 1 um and is rounded to 16, which is 16 um"):
        found = RunConfig.parse(config(["16.4 um", "100.2 um"], 16, pixel_size="1 um"))
    assert found.foveation.fields_of_view == (16, 100)


def test_with_a_surround_the_narrowest_view_is_as_many_pixels_as_the_middle():
    tree = config(["12 um", "48 um"], 32)
    tree["foveation"]["surround"] = 4
    found = RunConfig.parse(tree)
    assert found.data.pixel_size == "0.5 um"
    assert found.foveation.fields_of_view == (24, 96)


@pytest.mark.parametrize("views", [["16 um", 64], ["16 um", "64"], ["16 um", "far"]])
def test_lengths_and_pixels_are_not_mixed(views):
    with pytest.raises(ConfigError, match=r"fields_of_view are all|is not a length"):
        RunConfig.parse(config(views))


def test_alone_a_foveation_has_pixels():
    with pytest.raises(ConfigError, match="lengths need the patch_size and the data section of a run"):
        FoveationConfig.parse({"patch_size": 32, "fields_of_view": ["16 um"]})


def test_a_view_below_the_patch_says_so():
    with pytest.raises(ConfigError, match="smaller than the patch"):
        RunConfig.parse(config(["16 um", "64 um"], pixel_size="1 um"))


def scan(folder, name, side):
    """A scene, scanned with pixels of so many micrometres, and its mask."""
    image, label = shapes(3, 300, 340)
    step = round(side / 0.25)
    image, label = image[:, ::step, ::step], label[:, ::step, ::step]
    path = write_image(folder / "images" / f"{name}.tif", np.ascontiguousarray(image))
    with open_dataset(path, "r+") as file:
        file.update_tags(TIFFTAG_RESOLUTIONUNIT="3", TIFFTAG_XRESOLUTION=1e4 / side, TIFFTAG_YRESOLUTION=1e4 / side)
    write_image(folder / "masks" / f"{name}.png", np.ascontiguousarray(label))
    return path


def test_from_training_to_prediction(tmp_path):
    """Slides of 40x and 20x train together; a prediction lies on the grid of the working resolution."""
    paths = {
        name: scan(tmp_path / "toy", name, side) for name, side in (("a", 0.25), ("b", 0.5), ("c", 0.25), ("d", 0.25))
    }
    tree = toy_config(tmp_path, steps=2, validate_every=2)
    tree["foveation"]["fields_of_view"] = ["16 um", "32 um"]
    settings = RunConfig.load(write_config(tmp_path / "toy.yaml", tree))
    assert settings.data.pixel_size == "0.5 um"
    prepare_training(settings, RunFolder(tmp_path / "run")).fit(progress=False)
    run = load_run(tmp_path / "run")
    assert evaluate_split(run, "test").images[0].tree()["pixels"] == 150 * 170
    for name in "ab":
        summary = predict(run, paths[name], tmp_path / "out")
        assert (summary["height"], summary["width"]) == (150, 170)
        with open_image(tmp_path / "out" / f"{name}.classes.tif") as classes:
            assert (classes.size.height, classes.size.width) == (150, 170)
            assert classes.resolution.row == pytest.approx(0.5e-6, rel=1e-3)
