"""What is found beside what was given, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from reader_toys import write_ome_zarr
from viewer_toys import CELL, HEIGHT, NAMES, PLACE, WIDTH

from foveate.errors import ConfigError, ImageReadError
from foveate.geometry import Resolution, Size
from foveate.viewer.build import build_scene
from foveate.viewer.inputs import _zarr_facts, find_inputs
from foveate.viewer.page import TileIndex, TileService, manifest
from foveate.viewer.scene import Options
from server_toys import served
from toys import write_image


def kinds(scene):
    return [(layer.kind, layer.prediction) for layer in scene.layers]


def test_a_folder_gives_every_layer_that_is_there(toy):
    scene = build_scene(find_inputs([toy.image, toy.first], toy.labels))
    assert kinds(scene) == [
        ("image", None), ("labels", None), ("classes", 0), *[("probabilities", 0)] * 3, ("fov", 0), ("confidence", 0),
        ("errors", 0), ("polygons", 0), ("windows", 0),
    ]  # fmt: skip
    assert scene.resolution == Resolution(0.5, 0.5)
    assert [layer.option for layer in scene.layers if layer.kind == "probabilities"] == list(NAMES)
    assert scene.layers[-1].looks == ((1, 64, 32), (2, 128, 128))
    assert [entry.name for entry in scene.layers[-1].classes] == ["64 px wide, central 32 used", "128 px wide"]
    classes = scene.layers[2].classes
    assert [entry.name for entry in classes] == list(NAMES)
    assert [entry.color for entry in classes] == ["#202020", "#e0c040", "#0080c8"]
    assert sum(entry.share for entry in classes) == pytest.approx(1)


@pytest.mark.parametrize("name", ["scene.classes.tif", "scene.fov.tif", "scene.passes.tif", "scene.json"])
def test_any_file_of_a_prediction_means_all_of_it(toy, name):
    assert find_inputs([toy.first / name]).predictions[0].values.keys() == {"probabilities", "fov", "confidence"}


def test_the_image_is_found_where_the_summary_says(toy, tmp_path):
    assert find_inputs([toy.first]).image is None
    folder = shutil.copytree(toy.first, tmp_path / "moved")
    (folder / "scene.json").write_text(json.dumps({"image": str(toy.image)}))
    assert find_inputs([folder]).image == toy.image
    scene = build_scene(find_inputs([toy.first]))
    assert scene.size.height == HEIGHT
    assert "scene.tif was not found" in scene.notices[0]
    assert scene.layers[0].opacity == 1


def test_predictions_of_one_stem_are_told_apart(toy):
    scene = build_scene(find_inputs([toy.image, toy.first, toy.second]))
    assert scene.predictions == ("first/scene", "second/scene")
    assert {prediction for _, prediction in kinds(scene)} == {None, 0, 1}


def test_a_folder_with_several_stems_asks_which(toy, tmp_path):
    folder = shutil.copytree(toy.first, tmp_path / "many")
    shutil.copy(folder / "scene.classes.tif", folder / "other.classes.tif")
    with pytest.raises(ConfigError, match="choose with --name: other, scene"):
        find_inputs([folder])
    assert find_inputs([folder], name="other").predictions[0].name == "other"
    with pytest.raises(ConfigError, match="no prediction of 'nobody'"):
        find_inputs([folder], name="nobody")


@pytest.mark.parametrize("kind", ["dicom", "zarr"])
def test_a_folder_that_is_an_image_is_shown_as_one(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 300, 400)).astype(np.uint8)
    folder = tmp_path / "slide"
    if kind == "dicom":
        folder.mkdir()
        pytest.importorskip("dicom_toys").write_dicom(folder, [pixels])
    else:
        write_ome_zarr(folder, [pixels])
    scene = build_scene(find_inputs([folder]))
    assert (scene.title, scene.size, [layer.kind for layer in scene.layers]) == ("slide", Size(300, 400), ["image"])


@pytest.mark.parametrize(
    ("bands", "names", "said"),
    [
        (1, [], None),
        (3, [], None),
        (1, ["DAPI"], None),
        (2, [], "Band 1 is shown, of 2; --bands 2 shows one alone."),
        (4, [], "Bands 1, 2, 3 are shown as red, green, blue, of 4; "),
        (3, ["DAPI", "GFP", "TRITC"], "Bands 1 (DAPI), 2 (GFP), 3 (TRITC) are shown as red, green, blue, of 3; "),
        (3, ["B04", "B03", "B02"], "Bands 1 (B04), 2 (B03), 3 (B02) are shown as red, green, blue, of 3; "),
    ],
)
def test_it_is_said_which_bands_are_the_colours_unless_they_were_chosen(tmp_path, bands, names, said):
    path = write_image(tmp_path / "a.tif", np.zeros((bands, 40, 50), np.uint16), **PLACE)
    if names:
        with rasterio.open(path, "r+") as file:
            file.descriptions = names
    notices = build_scene(find_inputs([path])).notices
    assert [notice.startswith(said or "?") for notice in notices] == ([] if said is None else [True])
    assert build_scene(find_inputs([path]), Options(bands=(1,))).notices == ()


def test_what_cannot_be_shown_is_refused_with_a_reason(toy, tmp_path):
    with pytest.raises(ImageReadError, match="nothing at"):
        find_inputs([tmp_path / "gone.tif"])
    with pytest.raises(ConfigError, match="holds no prediction"):
        find_inputs([tmp_path])
    with pytest.raises(ConfigError, match="are all images"):
        find_inputs([toy.image, write_image(tmp_path / "b.tif", np.zeros((3, 9, 9), np.uint8))])
    small = write_image(tmp_path / "small.tif", np.zeros((1, 9, 30), np.uint8))
    with pytest.raises(ConfigError, match="must be the same"):
        build_scene(find_inputs([toy.image], small))
    with pytest.raises(ConfigError, match="labels are one band"):
        build_scene(find_inputs([toy.image], toy.image))
    with pytest.raises(ConfigError, match="numbers from 1 to 3"):
        build_scene(find_inputs([toy.image]), Options(bands=(1, 2, 9)))
    with pytest.raises(ConfigError, match="64 to 1024"):
        build_scene(find_inputs([toy.image]), Options(tile=7))
    shutil.copy(toy.first / "scene.classes.tif", tmp_path / "x.classes.tif")
    write_image(tmp_path / "x.entropy.tif", np.zeros((1, 20, 99), np.uint8))
    with pytest.raises(ConfigError, match="do not show the same place"):
        build_scene(find_inputs([tmp_path / "x.classes.tif"]))


def test_a_plain_mask_is_an_image_until_it_is_called_labels(toy, tmp_path):
    assert find_inputs([toy.labels]).predictions == ()
    scene = build_scene(find_inputs([toy.image], toy.labels))
    assert [entry.name for entry in scene.layers[1].classes] == ["class 0", "class 1", "class 2"]


def test_names_of_ome_zarr_labels(tmp_path):
    label = {"colors": [{"label-value": 1, "rgba": [1, 2, 3, 255]}], "properties": [{"label-value": 1, "name": "lake"}]}
    (tmp_path / ".zattrs").write_text(json.dumps({"image-label": label}))
    assert _zarr_facts(tmp_path) == {"palette": {1: (1, 2, 3)}, "tags": {"class_1": "lake"}}


def test_the_manifest_is_plain_json(toy):
    tree = manifest(build_scene(find_inputs([toy.image, toy.first], toy.labels)), "tiles/x/")
    assert json.loads(json.dumps(tree, allow_nan=False))["layers"][6]["pixel"] == CELL
    assert tree["georeference"]["name"] == "EPSG:32633"
    assert (tree["width"], tree["height"], tree["resolution"]) == (WIDTH, HEIGHT, (0.5, 0.5))
    assert str(toy.image.parent) not in json.dumps(tree)


def test_a_geographic_place_has_no_metres(tmp_path):
    transform = rasterio.Affine(0.1, 0, 10, 0, -0.1, 50)
    path = write_image(tmp_path / "degrees.tif", np.zeros((1, 40, 40), np.uint8), crs="EPSG:4326", transform=transform)
    tree = manifest(build_scene(find_inputs([path])), "")
    assert tree["resolution"] is None
    assert tree["georeference"]["geographic"]


def test_an_image_on_a_server_is_read_and_its_secrets_are_not_told(toy, tmp_path):
    # All that is asked before tiles are lies at the start of a COG. Elsewhere GDAL may read while it holds the lock
    # that a server in the same process waits for.
    rasterio.shutil.copy(toy.image, tmp_path / "scene.tif", driver="COG")
    with served(tmp_path) as server:
        url = Path(f"{server.url}/scene.tif?token=secret")  # as the command line makes it
        scene = build_scene(find_inputs([url, toy.first], toy.labels))
        assert scene.title == "scene.tif"
        assert "secret" not in json.dumps(manifest(scene, "tiles/"))
        with TileService(scene, threads=1) as tiles:
            remote = tiles.submit(0, TileIndex(8, 0, 0)).result()
    with TileService(build_scene(find_inputs([tmp_path / "scene.tif"])), threads=1) as tiles:
        assert remote == tiles.submit(0, TileIndex(8, 0, 0)).result()
