"""Labels are read where they lie: each pixel of the image takes the label under its centre."""

import pickle

import numpy as np
import pytest
from data_toys import data_config, smooth_image, write
from rasterio import CRS, Affine
from rasterio.warp import transform as warp

from foveate.data.images import SampleReader, open_labels, open_sample
from foveate.data.label_index import index_labels
from foveate.data.labels import raster
from foveate.data.labels.raster import RasterLabels
from foveate.data.labels.table import LabelTable
from foveate.data.locations import LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.place import Stretched, placement_of
from foveate.data.readers import ArrayReader, Georeference
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from foveate.patches import ScaleSet

IDS = np.random.default_rng(0).integers(0, 200, (100, 150), dtype=np.uint8)
UTM, OTHER = "EPSG:32632", "EPSG:32633"


def everywhere(labels, rows=None, cols=None):
    rows = np.arange(labels.size.height) if rows is None else rows
    cols = np.arange(labels.size.width) if cols is None else cols
    return labels.ids(rows, cols, np.ones((len(rows), len(cols)), bool))


def image(shape, transform, crs=UTM, name="image.tif"):
    return ArrayReader(np.zeros(shape, np.uint8), name, Georeference(CRS.from_user_input(crs).to_wkt(), transform[:6]))


def mask(ids, transform, crs=UTM):
    wkt = CRS.from_user_input(crs).to_wkt() if crs else ""
    return ArrayReader(ids, "mask.tif", Georeference(wkt, tuple(transform)[:6]))


def labels(picture, ids):
    return RasterLabels(ids, LabelTable(200), placement_of(picture, ids), size=picture.size)


def slow(picture, ids, transform, crs=UTM):
    """One pixel after the other, by rasterio's own functions; 255 outside the mask."""
    a, b, c, d, e, f = picture.georeference.transform
    k, m, n, o, p, q = tuple(~Affine(*tuple(transform)[:6]))[:6]
    found = np.full((picture.size.height, picture.size.width), 255, np.uint8)
    for row in range(picture.size.height):
        for col in range(picture.size.width):
            x, y = a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f
            if crs != UTM:
                (x,), (y,) = warp(UTM, crs, [x], [y])
            j, i = (int(np.floor(v + 1e-6)) for v in (k * x + m * y + n, o * x + p * y + q))
            if 0 <= i < ids.shape[0] and 0 <= j < ids.shape[1]:
                found[row, col] = ids[i, j]
    return found


@pytest.mark.parametrize("size", [Size(50, 75), Size(77, 90), Size(301, 413), Size(100, 150)])
def test_class_ids_are_those_under_the_centres(size):
    reader = ArrayReader(IDS[None])
    found = RasterLabels(reader, LabelTable(200), Stretched(size, reader.size), size=size)
    rows = ((np.arange(size.height) + 0.5) * 100 / size.height).astype(int)
    cols = ((np.arange(size.width) + 0.5) * 150 / size.width).astype(int)
    expected = IDS[np.ix_(rows, cols)]
    np.testing.assert_array_equal(everywhere(found), expected)
    part = everywhere(found, np.arange(20, 31), np.arange(30, 43))
    np.testing.assert_array_equal(part, expected[20:31, 30:43])


def test_class_ids_are_read_in_strips(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 200, (1, 1000, 900), dtype=np.uint8)
    reader, size = ArrayReader(ids), Size(100, 90)
    found = RasterLabels(reader, LabelTable(200), Stretched(size, reader.size), size=size)
    whole = everywhere(found)
    monkeypatch.setattr(raster, "STRIP_BYTES", 1 << 15)
    sizes, original = [], reader._read_level
    monkeypatch.setattr(reader, "_read_level", lambda lv, w: sizes.append(w.size.pixels) or original(lv, w))
    np.testing.assert_array_equal(everywhere(found), whole)
    assert max(sizes) <= 2 << 15


def turned(x, y, angle, width, height):
    """A grid from a corner on, turned about it."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return Affine(cos * width, -sin * height, x, sin * width, cos * height, y)


GRIDS = {
    "shifted": Affine(1, 0, 500007, 0, -1, 5399960),
    "shifted by half a pixel": Affine(1, 0, 500007.5, 0, -1, 5399960.5),
    "south up": Affine(1, 0, 500000, 0, 1, 5399910),
    "mirrored": Affine(-1, 0, 500070, 0, -1, 5400005),
    "finer": Affine(0.5, 0, 499990, 0, -0.5, 5400005),
    "coarser": Affine(3, 0, 499990, 0, -3, 5400020),
    "turned": turned(500010, 5399990, -30, 0.8, -0.7),
    "axes exchanged": Affine(0, -1, 500080, 1, 0, 5399920),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("angle", [0, -20])
def test_one_system(name, angle):
    own = turned(500000, 5400000, angle, 1, -1)
    picture, ids = image((40, 60), own), mask(IDS, GRIDS[name])
    expected = slow(picture, IDS, GRIDS[name])
    found = labels(picture, ids)
    np.testing.assert_array_equal(everywhere(found), expected)
    rows, cols = np.array([3, 8, 21, 39]), np.array([0, 1, 30, 31, 59])
    np.testing.assert_array_equal(everywhere(found, rows, cols), expected[np.ix_(rows, cols)])
    if (expected == 255).mean() > 0.02:
        assert "covers" in found.notes[0]


def test_another_system():
    """A mask in the next zone, turned against the image by the zones' convergence."""
    own = (2.0, 0.0, 760000.0, 0.0, -2.0, 5400000.0)
    (x,), (y,) = warp(UTM, OTHER, [760060], [5399960])
    there = Affine(1, 0, x - 40, 0, -1, y + 30)
    picture = image((40, 60), own)
    expected = slow(picture, IDS, there, OTHER)
    found = labels(picture, mask(IDS, there, OTHER))
    assert 0.5 < (expected != 255).mean() < 1
    assert (everywhere(found) == expected).mean() > 0.999  # centres on a border may fall to either side
    rows, cols = np.arange(1, 40, 7), np.arange(0, 60, 9)
    assert (everywhere(found, rows, cols) == expected[np.ix_(rows, cols)]).all()


def test_degrees_and_metres():
    degrees = Affine(1e-5, 0, 9.0, 0, -1e-5, 48.75)
    (x,), (y,) = warp("EPSG:4326", UTM, [9.0], [48.75])
    picture = image((40, 60), (1.0, 0.0, x + 3, 0.0, -1.0, y - 4))
    expected = slow(picture, IDS, degrees, "EPSG:4326")
    assert (everywhere(labels(picture, mask(IDS, degrees, "EPSG:4326"))) == expected).mean() > 0.999
    assert (expected != 255).all()


@pytest.mark.parametrize("pixel_size", [None, "2 m", "0.7 m"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_training_and_evaluation_read_labels_where_they_lie(tmp_path, pixel_size, kind):
    """Files of other grids, also at a working resolution; either may be the one that is shifted."""
    grids = {"images": Affine(1, 0, 500000, 0, -1, 5400000), "masks": Affine(0.5, 0, 499990, 0, 0.5, 5399930)}
    if kind == "images":
        grids = {"images": Affine(1, 0, 500000, 0, 1, 5399900), "masks": Affine(1, 0, 500004, 0, -1, 5399990)}
    ids = (IDS % 2).astype(np.uint8)
    for name, pixels in (("images", smooth_image(3, 60, 80, np.uint8)), ("masks", ids[None])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.tif", pixels, driver="GTiff", crs=UTM, transform=grids[name])
    config = data_config(tmp_path, pixel_size=pixel_size)
    (sample,) = load_samples(config)
    with open_sample(sample, config) as picture, open_labels(sample, config) as found:
        expected = slow(picture, ids, grids["masks"])
        np.testing.assert_array_equal(found.read(Window.of(found.size)), expected)
        index = index_labels(found, 2, 4)
    assert index.tally.counts.tolist() == [(expected == 0).sum(), (expected == 1).sum()]
    assert 0.01 < (expected == 255).mean() < 0.95
    reader = SampleReader(config, LocationSpec(ScaleSet(16, (16, 32)), 8, 1, (0, 1), window_labels=True))
    (location,) = reader.read(sample, [(2, 3)])
    np.testing.assert_array_equal(location.label.numpy(), expected[12:28, 20:36])
    np.testing.assert_array_equal(location.window_labels[1].numpy(), padded(expected, 4, 12, 32)[1::2, 1::2])
    assert type(reader)(config, reader.spec).read(sample, [(2, 3)])[0].label.equal(location.label)
    pickle.loads(pickle.dumps(reader)).close()
    reader.close()


def padded(ids, top, left, side):
    """A square of labels, not counted outside."""
    whole = np.full((ids.shape[0] + 2 * side, ids.shape[1] + 2 * side), 255, np.uint8)
    whole[side : side + ids.shape[0], side : side + ids.shape[1]] = ids
    return whole[side + top : 2 * side + top, side + left : 2 * side + left]


def test_the_same_rectangle_is_taken_in_whole_numbers():
    same = (1.0, 0.0, 500000.0, 0.0, -1.0, 5400000.0)
    twice = (0.5, 0.0, 500000.0, 0.0, -0.5, 5400000.0)
    for transform in (same, twice):
        ids = IDS if transform == same else IDS.repeat(2, 0).repeat(2, 1)
        found = placement_of(image((100, 150), same), mask(ids, transform))
        assert isinstance(found, Stretched)
        assert found.note == ""


def test_places_that_do_not_meet_are_both_named():
    picture = image((40, 60), (1.0, 0.0, 500000.0, 0.0, -1.0, 5400000.0))
    far = mask(IDS, (1.0, 0.0, 600000.0, 0.0, -1.0, 5400000.0))
    with pytest.raises(DatasetError, match=r"the image spans 500000 to 500060, 5399960 to 5400000 in EPSG:32632"):
        placement_of(picture, far)
    with pytest.raises(DatasetError, match=r"the mask mask\.tif .* and the mask 600000 to 600150, .* in EPSG:32633"):
        placement_of(picture, mask(IDS, (1.0, 0.0, 600000.0, 0.0, -1.0, 5400000.0), OTHER))


def test_a_mask_between_the_points_that_are_looked_at():
    picture = image((6400, 6400), (1.0, 0.0, 500000.0, 0.0, -1.0, 5400000.0))
    found = labels(picture, mask(IDS[:20, :20], (1.0, 0.0, 500330.0, 0.0, -1.0, 5399660.0)))
    np.testing.assert_array_equal(everywhere(found, np.arange(340, 360), np.arange(330, 350)), IDS[:20, :20])


def test_a_place_that_only_one_has_is_not_used():
    placed = (1.0, 0.0, 500000.0, 0.0, -1.0, 5400000.0)
    without = ArrayReader(IDS, "mask.png")
    found = placement_of(image((100, 150), placed), without)
    assert isinstance(found, Stretched)
    assert "only the image has a georeference" in found.note
    # A system without a place is none.
    nowhere = mask(IDS, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    assert placement_of(image((100, 150), placed), nowhere) == found
    with pytest.raises(DatasetError, match=r"100 x 151 pixels and its mask mask\.png is 100 x 150"):
        placement_of(image((100, 151), placed), without)


def test_a_world_file_is_in_the_system_of_the_image():
    placed = (1.0, 0.0, 500000.0, 0.0, -1.0, 5400000.0)
    picture = image((40, 60), placed)
    found = labels(picture, mask(IDS, (1.0, 0.0, 499990.0, 0.0, -1.0, 5400010.0), crs=""))
    np.testing.assert_array_equal(everywhere(found), IDS[10:50, 10:70])
