"""Overlapping classes: each alone, all of them together, labels of every form, and where both differ."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from browser_toys import opened, readout, served, settle
from viewer_toys import PLACE, on_ground

from foveate.data.readers import open_image
from foveate.data.sections import ClassConfig, VectorsConfig
from foveate.errors import ConfigError
from foveate.geometry import Size, Window
from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.rendering import RIGHT, TOO_MUCH, WRONG
from foveate.viewer.scene import Options
from toys import write_image

HEIGHT, WIDTH = 40, 50
NAMES = ("disc", "square")


@dataclass(frozen=True)
class Toy:
    image: Path
    folder: Path  # of the prediction
    found: np.ndarray
    truth: np.ndarray


@pytest.fixture(scope="module")
def overlap(tmp_path_factory):
    """A prediction of two overlapping classes; its first rows are unknown."""
    folder, rng = tmp_path_factory.mktemp("overlap"), np.random.default_rng(0)
    found, truth = rng.integers(0, 2, (2, 2, HEIGHT, WIDTH)).astype(np.uint8)
    found[:, :8] = 255
    image = write_image(folder / "scene.tif", np.zeros((3, HEIGHT, WIDTH), np.uint8), **PLACE)
    path = write_image(folder / "out/scene.classes.tif", found, nodata=255, **PLACE)
    with rasterio.open(path, "r+") as target:
        target.update_tags(overlapping="true", class_0="disc", class_1="square")
    (folder / "out/scene.json").write_text(json.dumps({"class_pixels": {"disc": 500, "square": 200}}))
    return Toy(image, folder / "out", found, truth)


def layers_of(toy, labels, options=None):
    scene = build_scene(find_inputs([toy.image, toy.folder], labels=labels), options)
    return {(layer.kind, layer.option): layer for layer in scene.layers}


def codes_of(layer):
    return layer.rendering.draw(open_image, Window(0, 0, HEIGHT, WIDTH), Size(HEIGHT, WIDTH))


def bits(masks):
    return masks[0] + 2 * masks[1]


def by_class(folder, truth):
    """A mask for each class, in folders of their names."""
    for name, mask in zip(NAMES, truth, strict=True):
        write_image(folder / name / "scene.png", mask[None] * 255)
    return folder / "{class}" / "scene.png"


def test_overlapping_classes_are_a_layer_each_and_one_of_all(overlap, tmp_path):
    labels = write_image(tmp_path / "mask.tif", overlap.truth * 255)
    layers = layers_of(overlap, labels)
    assert set(layers) == {("image", ""), ("errors", "any class")} | {
        *((kind, name) for kind in ("labels", "classes", "errors") for name in NAMES),
        *((kind, "all classes") for kind in ("labels", "classes")),
    }
    assert [entry.share for entry in layers["classes", "square"].classes] == [500 / 2000, 200 / 2000]
    for code, name in enumerate(NAMES):
        for kind, mask in (("classes", overlap.found[code] == 1), ("labels", overlap.truth[code] == 1)):
            assert np.array_equal(codes_of(layers[kind, name]), np.where(mask, code, 255))
    assert np.array_equal(codes_of(layers["labels", "all classes"]), bits(overlap.truth))
    unknown = overlap.found[0] == 255
    assert np.array_equal(codes_of(layers["classes", "all classes"]), np.where(unknown, 255, bits(overlap.found == 1)))


@pytest.mark.parametrize("form", ["bands", "folders"])
def test_errors_are_told_for_any_class_and_for_each_as_missed_or_too_much(overlap, tmp_path, form):
    labels = (
        write_image(tmp_path / "mask.tif", overlap.truth)
        if form == "bands"
        else by_class(tmp_path / "masks", overlap.truth)
    )
    layers, unknown = layers_of(overlap, labels), overlap.found[0] == 255
    wrong = (overlap.found != overlap.truth).any(axis=0)
    assert np.array_equal(
        codes_of(layers["errors", "any class"]), np.where(unknown, 255, np.where(wrong, WRONG, RIGHT))
    )
    for number, name in enumerate(NAMES):
        found, truth = overlap.found[number], overlap.truth[number]
        expected = np.select([unknown, found == truth, truth == 1], [255, RIGHT, WRONG], TOO_MUCH)
        assert np.array_equal(codes_of(layers["errors", name]), expected)


def test_a_class_without_a_mask_is_nowhere_and_that_is_said(overlap, tmp_path):
    labels = by_class(tmp_path, overlap.truth[:1].repeat(2, axis=0))
    (tmp_path / "square/scene.png").unlink()
    scene = build_scene(find_inputs([overlap.image, overlap.folder], labels=labels))
    assert "There is no mask of square: taken as not in the image." in scene.notices
    layers = {(layer.kind, layer.option): layer for layer in scene.layers}
    assert np.array_equal(codes_of(layers["labels", "all classes"]), overlap.truth[0])
    with pytest.raises(ConfigError, match="none of the classes disc, square has a file there"):
        layers_of(overlap, tmp_path / "{class}" / "other.png")


def test_without_a_prediction_the_classes_are_the_folders(overlap, tmp_path):
    labels = by_class(tmp_path, overlap.truth)
    scene = build_scene(find_inputs([overlap.image], labels=labels))
    assert [layer.option for layer in scene.layers] == ["", "all classes", *NAMES]
    with pytest.raises(ConfigError, match=r"no file has this name with a class for \{class\}"):
        build_scene(find_inputs([overlap.image], labels=tmp_path / "{class}" / "other.png"))


def test_a_label_map_says_what_is_yes_and_what_is_not_counted(overlap, tmp_path):
    labels = by_class(tmp_path, overlap.truth)
    classes = [ClassConfig(name=name, color="#123456") for name in NAMES]
    options = Options(classes=classes, overlapping=True, label_map={255: 0, 0: 1})
    layers = layers_of(overlap, labels, options)
    assert np.array_equal(codes_of(layers["labels", "all classes"]), bits(1 - overlap.truth))


def outline(path, shapes):
    """GeoJSON of rectangles (left, top, right, bottom) by class."""
    features = [
        {
            "type": "Feature",
            "properties": {"class": name} if name else {"area": 7},
            "geometry": {"type": "Polygon", "coordinates": [on_ground(corners)]},
        }
        for name, corners in shapes
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    crs = {"type": "name", "properties": {"name": PLACE["crs"]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


RECTANGLES = (("disc", (5, 10, 30, 35)), ("square", (20, 15, 45, 38)))


def rectangles():
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for mask, (_, (left, top, right, bottom)) in zip(masks, RECTANGLES, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


@pytest.mark.parametrize("form", ["one file", "a file for each class"])
def test_polygons_may_overlap(overlap, tmp_path, form):
    if form == "one file":
        labels = outline(tmp_path / "scene.geojson", RECTANGLES)
    else:
        for name, corners in RECTANGLES:
            outline(tmp_path / name / "scene.geojson", [("", corners)])
        labels = tmp_path / "{class}" / "scene.geojson"
    layers, truth = layers_of(overlap, labels), rectangles()
    unknown, wrong = overlap.found[0] == 255, (overlap.found != truth).any(axis=0)
    assert np.array_equal(
        codes_of(layers["errors", "any class"]), np.where(unknown, 255, np.where(wrong, WRONG, RIGHT))
    )
    assert [entry.name for entry in layers["labels", ""].classes] == list(NAMES)


def test_what_is_outside_all_polygons_may_be_left_out(overlap, tmp_path):
    labels = outline(tmp_path / "scene.geojson", RECTANGLES)
    classes = [ClassConfig(name=name, color="#123456") for name in NAMES]
    options = Options(classes=classes, overlapping=True, vectors=VectorsConfig(unlabelled="ignore"))
    errors = codes_of(layers_of(overlap, labels, options)["errors", "disc"])
    outside = ~rectangles().any(axis=0) | (overlap.found[0] == 255)
    assert np.array_equal(errors == 255, outside)


def test_the_page_stripes_overlapping_classes_and_names_all_of_a_pixel(browser, overlap, tmp_path):
    pytest.importorskip("uvicorn", reason="the extra viewer is not installed")
    found = np.zeros((2, 400, 400), np.uint8)
    found[0, :, :300], found[1, :, 100:] = 1, 1
    image = write_image(tmp_path / "scene.tif", np.zeros((3, 400, 400), np.uint8), **PLACE)
    path = write_image(tmp_path / "out/scene.classes.tif", found, **PLACE)
    with rasterio.open(path, "r+") as target:
        target.update_tags(overlapping="true", class_0="disc", class_1="square")
    with served(image, tmp_path / "out") as address, opened(browser, address) as page:
        classes = page.locator("[data-kind=classes]")
        classes.locator("input[type=range]").fill("100")
        screen = settle(page)
        box = page.locator(".pane").bounding_box()
        x, y = int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)
        colours = {tuple(map(int, pixel)) for pixel in screen[y, x - 60 : x + 60]}
        assert {(0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)} <= colours
        page.mouse.move(x, y)
        page.mouse.move(x + 1, y)
        readout(page, "disc and square")
        classes.get_by_label("Show only square").click()
        colours = {tuple(map(int, pixel)) for pixel in settle(page)[y, x - 60 : x + 60]}
        assert colours == {(0xE6, 0x9F, 0x00)}
