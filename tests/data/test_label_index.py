"""What is labelled is counted and told before training; a class that training would not see is refused, with why."""

import json

import numpy as np
import pytest
from affine import Affine
from data_toys import data_config, smooth_image, write
from hypothesis import given
from hypothesis import strategies as st

from foveate.data import label_index
from foveate.data.datamodule import FoveateDataModule
from foveate.data.label_index import SplitLabels, index_labels, index_masks, spread_windows
from foveate.data.locations import LocationSpec
from foveate.data.readers import ArrayReader
from foveate.errors import DatasetError
from foveate.geometry import Size
from foveate.patches import ScaleSet
from toys import labels_of

SPEC = LocationSpec(ScaleSet(8, (8, 16)), 4, 3, (0, 1))
THREE = [{"name": name, "color": [i, i, i]} for i, name in enumerate(("ground", "water", "road"))]
CLASSES = 3


def squares(seed=0, height=60, width=80):
    """Ground with some water."""
    rng = np.random.default_rng(seed)
    return (rng.random((1, height, width)) < 0.3).astype(np.uint8)


def scenes(folder, masks, images=None, mask_options=None, **image_options):
    """A data set of these masks by name."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    for name, mask in masks.items():
        image = images[name] if images else smooth_image(3, *mask.shape[1:], np.uint8).clip(1)
        write(folder / "images" / f"{name}.tif", image, driver="GTiff", **image_options)
        write(folder / "masks" / f"{name}.tif", mask, driver="GTiff", **(mask_options or {}))
    return folder


def prepared(folder, **values):
    data = FoveateDataModule(data_config(folder, **{"split": {"val": ["v"]}, **values}), SPEC, steps=1)
    data.setup()
    return data


def refused(folder, *parts, **values):
    with pytest.raises(DatasetError) as caught:
        prepared(folder, **values)
    for part in parts:
        assert part in str(caught.value)


def test_counts_of_every_split(tmp_path):
    masks = {name: squares(i) for i, name in enumerate("abv")}
    masks["v"][0, :10] = 255
    data = prepared(scenes(tmp_path, masks))
    train, val = data.class_table.splits
    assert (train.split, train.images, val.split, val.images) == ("train", 2, "val", 1)
    ones = int(masks["a"].sum() + masks["b"].sum())
    assert train.tally.counts.tolist() == [2 * 60 * 80 - ones, ones] == data.pixel_counts.tolist()
    assert val.tally.counts.tolist() == [(masks["v"] == 0).sum(), (masks["v"] == 1).sum()]
    assert val.tally.ignored == 800
    assert not val.estimated
    assert data.notes == ()


def test_a_class_that_is_the_ignored_value(tmp_path):
    masks = {name: squares(i) * 255 for i, name in enumerate("abv")}
    pixels = int((masks["a"] > 0).sum() + (masks["b"] > 0).sum())
    refused(
        scenes(tmp_path, masks),
        "class water has no labelled pixel",
        f"{pixels:,} pixels of the masks are 255, which does not count; if they are water, set "
        "data.label_map={255: 1}",
        "data.allow_absent_classes=true",
        "val: ground",
    )
    data = prepared(tmp_path, label_map={255: 1})
    assert data.pixel_counts.tolist() == [2 * 60 * 80 - pixels, pixels]
    allowed = prepared(tmp_path, allow_absent_classes=True)
    assert "class water has no labelled pixel" in allowed.notes[0]


def test_a_label_map_that_is_given_is_kept(tmp_path):
    masks = {name: np.array([7, 50, 9], np.uint8)[squares(i) + squares(i + 9)] for i, name in enumerate("abv")}
    refused(
        scenes(tmp_path, masks),
        "which data.label_map maps to 255; if they are road, set data.label_map={7: 0, 50: 1, 9: 2}",
        classes=THREE,
        label_map={7: 0, 50: 1, 9: 255},
    )
    refused(tmp_path, "maps the value 2 to another class", classes=THREE, label_map={7: 0, 50: 1, 9: 1, 2: 0})
    assert (prepared(tmp_path, classes=THREE, label_map={7: 0, 50: 1, 9: 2}).pixel_counts > 0).all()


def test_a_class_where_the_images_hold_no_data(tmp_path):
    masks = {name: squares(i) for i, name in enumerate("abv")}
    images = {name: np.where(mask, 0, 90).astype(np.uint8).repeat(3, 0) for name, mask in masks.items()}
    pixels = int(masks["a"].sum() + masks["b"].sum())
    refused(
        scenes(tmp_path, masks, images, nodata=0),
        f"{pixels:,} pixels of water lie where the images have no data",
        "data.nodata=ignore",
    )
    assert prepared(tmp_path, nodata="ignore").pixel_counts[1] == pixels


def test_what_was_noted_of_the_labels_is_told_with_the_refusal(tmp_path):
    """The class is where the masks do not lie on the images."""
    masks = {name: np.zeros((1, 60, 80), np.uint8) for name in "abv"}
    for mask in masks.values():
        mask[0, :, :30] = 1
    scenes(tmp_path, masks, crs="EPSG:32632", transform=Affine(1, 0, 500030, 0, -1, 5400000))
    for name, mask in masks.items():
        place = {"crs": "EPSG:32632", "transform": Affine(1, 0, 500000, 0, -1, 5400000)}
        write(tmp_path / "masks" / f"{name}.tif", mask, driver="GTiff", **place)
    refused(tmp_path, "class water has no labelled pixel", "a, b, v: the mask covers 6")


def test_most_of_a_class_where_the_images_hold_no_data(tmp_path):
    masks = {name: squares(i) for i, name in enumerate("abv")}
    images = {name: np.full((3, 60, 80), 90, np.uint8) for name in masks}
    for image in images.values():
        image[:, :45] = 0
    data = prepared(scenes(tmp_path, masks, images, nodata=0))
    train = data.class_table.splits[0].tally
    assert train.left_out[1].tolist() == [sum((masks[n][0, :45] == c).sum() for n in "ab") for c in (0, 1)]
    assert any("75% of the pixels of class water" in note and "nodata=ignore" in note for note in data.notes)


def test_a_class_that_the_masks_call_no_data(tmp_path):
    masks = {name: squares(i) for i, name in enumerate("abv")}
    refused(
        scenes(tmp_path, masks, mask_options={"nodata": 0}),
        "class ground has no labelled pixel",
        "pixels of the masks are 0, which the masks declare as nodata; if they are ground, set data.label_map={0: 0}",
    )
    expected = [2 * 60 * 80 - int(masks["a"].sum() + masks["b"].sum())]
    for values in ({"label_map": {0: 0}}, {"use_nodata": False}):
        assert prepared(tmp_path, **values).pixel_counts[:1].tolist() == expected


def test_a_class_that_is_nan(tmp_path):
    masks = {name: np.where(squares(i), 1, np.nan).astype(np.float32) for i, name in enumerate("abv")}
    unknown = int(np.isnan(masks["a"]).sum() + np.isnan(masks["b"]).sum())
    refused(scenes(tmp_path, masks), f"{unknown:,} pixels of the masks are NaN, which never counts; if they are ground")


def test_a_class_of_other_images(tmp_path):
    masks = {"a": squares() * 0, "b": squares() * 0, "v": squares()}
    refused(scenes(tmp_path, masks), "only val images show water; move one of them to training with data.split")
    masks["v"] *= 0
    refused(scenes(tmp_path, masks), "no label is water; add images that show it, or remove it from data.classes")


def test_a_class_outside_the_regions(tmp_path):
    masks = {"a": squares() * 0, "v": squares()}
    masks["a"][0, :, 40:] = 1
    scenes(tmp_path, masks)
    ring = [[0, 0], [40, 0], [40, 60], [0, 60], [0, 0]]
    (tmp_path / "left.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (tmp_path / "a.csv").write_text(
        "image,mask,split,roi\nimages/a.tif,masks/a.tif,train,left.geojson\nimages/v.tif,masks/v.tif,val,\n"
    )
    refused(tmp_path, "2,400 pixels of water lie outside the regions", manifest="a.csv", split={})


def test_validation_without_a_class_is_said(tmp_path):
    masks = {"a": squares(), "b": squares(), "v": squares() * 0}
    (note,) = prepared(scenes(tmp_path, masks)).notes
    assert (
        note == "class water has no labelled pixel in the validation images, so the scores of that split leave it out"
    )
    masks["v"][:] = 255
    refused(scenes(tmp_path, masks), "the validation images have no labelled pixel", "data.split.val=[]")


def test_training_without_a_label(tmp_path):
    masks = {name: np.full((1, 60, 80), 255, np.uint8) for name in "abv"}
    refused(scenes(tmp_path, masks), "classes ground, water have no labelled pixel", allow_absent_classes=True)


def test_large_splits_are_estimated(tmp_path, monkeypatch):
    masks = {name: squares(i, 300, 400) for i, name in enumerate("abv")}
    scenes(tmp_path, masks)
    monkeypatch.setattr(label_index, "_SIDE", 32)
    monkeypatch.setattr(label_index, "MOST_PIXELS", 20_000)
    val = prepared(tmp_path).class_table.splits[1]
    assert val.estimated
    assert val.tally.counts.sum() == pytest.approx(300 * 400, rel=0.001)
    assert val.tally.counts[1] == pytest.approx(masks["v"].sum(), rel=0.1)


@pytest.mark.parametrize("size", [Size(3, 5), Size(700, 4096), Size(5000, 5000), Size(512, 100_000)])
@pytest.mark.parametrize("pixels", [1, 1 << 20, 1 << 22, 1 << 40])
def test_windows_are_spread(size, pixels):
    windows = spread_windows(size, pixels)
    assert len(set(windows)) == len(windows) >= 1
    seen = sum(window.size.pixels for window in windows)
    if pixels >= size.pixels * 2:
        assert seen == size.pixels
    else:
        assert seen <= max(pixels, 512**2) * 1.1
    if 4 * 512**2 < seen < size.pixels and size.width > 512:
        assert len({window.left for window in windows}) > 1


def test_masks_without_an_image_are_said(tmp_path):
    scenes(tmp_path, {name: squares(i) for i, name in enumerate("abv")})
    write(tmp_path / "masks" / "c.tif", squares(), driver="GTiff")
    assert prepared(tmp_path).notes == ("masks without an image of the same name: c.tif",)


def reader(mask):
    return labels_of(ArrayReader(mask), CLASSES)


def random_mask(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width), p=[0.5, 0.01, 0.09, 0.4])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 500))
def test_counts_and_cells(height, width, cell, band):
    mask = random_mask(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_index, "_BAND_PIXELS", band)
        found = index_labels(reader(mask), CLASSES, cell)
    assert found.tally.counts.tolist() == [(mask == c).sum() for c in range(CLASSES)]
    assert found.tally.ignored == (mask == 255).sum()
    for row in range(found.grid.rows):
        for col in range(found.grid.cols):
            part = mask[row * cell : (row + 1) * cell, col * cell : (col + 1) * cell]
            assert found.is_labelled(row, col) == (part != 255).any()
            for c in range(CLASSES):
                assert ([row, col] in found.cells[c].tolist()) == (part == c).any()
    assert found.labelled_cells == sum(
        found.is_labelled(r, c) for r in range(found.grid.rows) for c in range(found.grid.cols)
    )


def test_thinned_out_evenly_and_always_alike(monkeypatch):
    mask = np.zeros((400, 400), np.uint8)
    few = index_labels(reader(mask), CLASSES, 2, max_cells=500).cells[0]
    monkeypatch.setattr(label_index, "_BAND_PIXELS", 1)
    again = index_labels(reader(mask), CLASSES, 2, max_cells=500).cells[0]
    np.testing.assert_array_equal(few, again)
    assert few.shape == (500, 2)
    assert len(np.unique(few, axis=0)) == 500
    quarters = np.bincount((few[:, 0] >= 100) * 2 + (few[:, 1] >= 100))
    assert quarters == pytest.approx([125] * 4, abs=45)


def test_many_masks():
    masks = [random_mask(30, 40, seed) for seed in range(6)]
    shares = []
    index = index_masks([lambda m=m: reader(m) for m in masks], CLASSES, 4, progress=shares.append)
    counts = SplitLabels.of_training(index).tally.counts
    assert counts.tolist() == [sum((m == c).sum() for m in masks) for c in range(CLASSES)]
    assert [image.tally.ignored for image in index] == [(m == 255).sum() for m in masks]
    assert shares == pytest.approx([k / 6 for k in range(1, 7)])


def test_bad_value_is_found_before_training():
    masks = [random_mask(9, 9), np.full((9, 9), 9, np.uint8)]
    with pytest.raises(DatasetError, match="holds the value 9"):
        index_masks([lambda m=m: reader(m) for m in masks], CLASSES, 4)
