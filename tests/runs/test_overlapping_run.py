"""Overlapping classes, from labels of every kind to a trained run, its maps and its scores."""

import json

import numpy as np
import pytest
import rasterio
import shapely
from shapely.geometry import mapping

import foveate
from foveate.data.images import open_labels
from foveate.data.manifest import load_samples
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import Window
from foveate.runs.config import RunConfig
from toys import toy_config, write_image

NAMES = ["disc", "square"]
SIDE = 160


def scene(seed):
    """Red discs and green squares that cover each other in part, (3, H, W), and where each is, (2, H, W)."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:SIDE, :SIDE]
    there = np.zeros((2, SIDE, SIDE), np.uint8)
    for _ in range(4):
        row, col = rng.integers(20, SIDE - 20, 2)
        there[0] |= (rows - row) ** 2 + (cols - col) ** 2 < 18**2
        row, col = row + rng.integers(-12, 12), col + rng.integers(-12, 12)
        there[1] |= (abs(rows - row) < 15) & (abs(cols - col) < 15)
    pixels = rng.normal(70, 12, (3, SIDE, SIDE))
    pixels[0] += 120 * there[0]
    pixels[1] += 120 * there[1]
    return pixels.clip(0, 255).astype(np.uint8), there


def make_scenes(folder, count=4):
    for seed in range(count):
        pixels, there = scene(seed)
        write_image(folder / f"images/{'abcd'[seed]}.png", pixels)
        write_image(folder / f"masks/{'abcd'[seed]}.tif", there)
    return folder


def config(root, estimator=None, data=None, **training):
    tree = toy_config(root, **({"steps": 50, "validate_every": 50, "learning_rate": 4e-3} | training))
    tree["data"] |= {"classes": NAMES, "overlapping": True} | (data or {})
    return tree | ({"foveation": tree["foveation"] | {"estimator": estimator}} if estimator else {})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("overlapping")
    make_scenes(root / "toy")
    return root


def labels_of(root, **data):
    """The labels of the first image, as a mask for each class and one of what counts."""
    settings = RunConfig.parse(config(root, data=data)).data
    with open_labels(load_samples(settings)[0], settings) as labels:
        found = labels.read(Window(0, 0, SIDE, SIDE))
    return np.stack(labels.membership.planes(found, 2)), found != labels.membership.ignore_index


def test_masks_with_a_band_for_each_class(root):
    masks, counted = labels_of(root)
    assert np.array_equal(masks, scene(0)[1] == 1)
    assert counted.all()


def test_a_folder_for_each_class_with_255_for_yes(tmp_path):
    for seed, stem in enumerate("abcd"):
        pixels, there = scene(seed)
        write_image(tmp_path / f"toy/images/{stem}.png", pixels)
        for name, mask in zip(NAMES, there, strict=True):
            write_image(tmp_path / f"toy/masks/{name}/{stem}.png", 255 * mask[None])
    masks, counted = labels_of(tmp_path)
    assert np.array_equal(masks, scene(0)[1] == 1)
    assert counted.all()


def test_a_manifest_names_the_masks_of_each_class_and_one_may_be_missing(tmp_path):
    pixels, there = scene(0)
    write_image(tmp_path / "a.png", pixels)
    write_image(tmp_path / "labels/disc/a_DI.tif", there[:1])
    (tmp_path / "toy.csv").write_text("image,mask,split\na.png,labels/{class}/a_*.tif,train\n")
    settings = {"folder": None, "manifest": "toy.csv", "split": {}}
    masks, _ = labels_of(tmp_path, **settings)
    assert np.array_equal(masks[0], there[0] == 1)
    assert not masks[1].any()
    parsed = RunConfig.parse(config(tmp_path, data=settings)).data
    with open_labels(load_samples(parsed)[0], parsed) as labels:
        assert labels.notes == ("there is no mask of square: taken as not there",)


def test_polygons_may_overlap(tmp_path):
    write_image(tmp_path / "toy/images/a.png", scene(0)[0])
    shapes = {"disc": shapely.box(10, 20, 60, 70), "square": shapely.box(40, 50, 90, 100)}
    features = [
        {"type": "Feature", "geometry": mapping(shape), "properties": {"class": name}} for name, shape in shapes.items()
    ]
    features.append({"type": "Feature", "geometry": mapping(shapely.box(0, 0, 5, 5)), "properties": {"class": None}})
    tree = {"type": "FeatureCollection", "features": features}
    (tmp_path / "toy/masks").mkdir()
    (tmp_path / "toy/masks/a.geojson").write_text(json.dumps(tree))
    expected = np.zeros((2, SIDE, SIDE), bool)
    expected[0, 20:70, 10:60] = expected[1, 50:100, 40:90] = True
    masks, counted = labels_of(tmp_path, split={"val": []})
    assert np.array_equal(masks, expected)
    assert not counted[:5, :5].any() and counted[5:].all()
    _, counted = labels_of(tmp_path, split={"val": []}, vectors={"unlabelled": "ignore"})
    assert np.array_equal(counted, expected.any(axis=0))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (scene(0)[1][:1], "has 1 bands for 2 overlapping classes"),
        (np.stack([scene(0)[1][0], 255 * scene(0)[1][1] + (scene(0)[1][0] & ~scene(0)[1][1])]), "both 1 and 255"),
        (2 * scene(0)[1], "holds the value 2"),
    ],
)
def test_masks_that_are_no_yes_or_no_are_refused(tmp_path, mask, said):
    write_image(tmp_path / "toy/images/a.png", scene(0)[0])
    write_image(tmp_path / "toy/masks/a.tif", mask.astype(np.uint8))
    with pytest.raises(DatasetError, match=said):
        labels_of(tmp_path, split={"val": []})


def test_a_mask_that_says_what_it_does_not_know(tmp_path):
    write_image(tmp_path / "toy/images/a.png", scene(0)[0])
    mask = scene(0)[1].copy()
    mask[:, :10] = 255
    write_image(tmp_path / "toy/masks/a.tif", mask, nodata=255)
    masks, counted = labels_of(tmp_path, split={"val": []})
    assert not counted[:10].any() and counted[10:].all()
    assert np.array_equal(masks[:, 10:], mask[:, 10:] == 1)
    _, counted = labels_of(tmp_path, split={"val": []}, use_nodata=False, label_map={1: 1, 255: 255})
    assert not counted[:10].any() and counted[10:].all()


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("estimator", [{"name": "fixed", "index": 0, "own_window": 1.0}, {"name": "cascade"}])
def test_from_masks_to_maps_and_scores(root, tmp_path, estimator):
    run = foveate.train(RunConfig.parse(config(root, estimator)), tmp_path / "run", devices="cpu", progress=False)
    pixels, there = scene(2)
    truth = there == 1
    result = run.predict(root / "toy/images/c.png", tmp_path / "out", outputs=("classes", "probabilities", "polygons"))
    with rasterio.open(tmp_path / "out/c.classes.tif") as raster:
        found = raster.read()
        assert raster.descriptions == tuple(NAMES)
        assert raster.nodata == 255
    assert set(np.unique(found)) == {0, 1}
    both = truth.all(axis=0)
    assert both.sum() > 300
    assert found[:, both].mean() > 0.9
    assert all(iou(found[k] == 1, truth[k]) > 0.8 for k in range(2))
    assert result["class_pixels"] == {name: int(found[k].sum()) for k, name in enumerate(NAMES)}
    array = run.predict(np.moveaxis(pixels, 0, -1))
    assert np.array_equal(array.classes, found)
    with rasterio.open(tmp_path / "out/c.probabilities.tif") as raster:
        shares = raster.read() / 254
    assert abs(shares - array.probabilities).max() < 0.01
    features = json.loads((tmp_path / "out/c.polygons.geojson").read_text())["features"]
    for k, name in enumerate(NAMES):
        drawn = [f for f in features if f["properties"]["classification"]["name"] == name]
        area = sum(shapely.geometry.shape(f["geometry"]).area for f in drawn)
        assert area == pytest.approx(int(found[k].sum()))
    scores = run.evaluate("val").scores
    assert [c.iou for c in scores.classes] == pytest.approx([iou(found[k] == 1, truth[k]) for k in range(2)])
    assert [c.pixels for c in scores.classes] == [int(mask.sum()) for mask in truth]


def test_what_holds_one_class_a_pixel_is_refused_by_name(root, tmp_path):
    with pytest.raises(ConfigError, match="colors and overlapping"):
        RunConfig.parse(config(root, data={"label_map": "colors"}))
