import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("zarr", reason="the extra zarr is not installed")

import zarr

from foveate.data.sections import ClassConfig
from foveate.errors import OutputWriteError
from foveate.geometry import Resolution, Size, Window
from foveate.inference.plan import BlockGrid
from foveate.writers.class_map import majority, open_class_maps, open_labels
from foveate.writers.outputs import OutputSpec, write_outputs
from foveate.writers.polygons import write_polygons

CLASSES = [ClassConfig(name="tumour", color="#ff0000"), ClassConfig(name="stroma", color="#00ff00")]
IDS = np.random.default_rng(0).integers(0, 2, (1500, 2100)).astype(np.uint8)
SIZE = Size(1500, 2100)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("zarr") / "slide.classes.ome.zarr"
    with open_labels(path, SIZE, CLASSES, Resolution(0.5e-6, 0.25e-6)) as raster:
        for window in BlockGrid(SIZE, 640):
            raster.write(window, IDS[window.within(Window.of(SIZE))])
    return path


def test_the_levels_are_a_pyramid(labels):
    group = zarr.open_group(str(labels), mode="r")
    assert [group[str(level)].shape for level in range(3)] == [(1500, 2100), (750, 1050), (375, 525)]
    assert np.array_equal(group["0"][:], IDS)
    assert np.array_equal(group["1"][:], majority(IDS))


def test_the_metadata_are_those_of_ngff_labels(labels):
    """As files, whatever a library makes of them."""
    facts = json.loads((labels / ".zattrs").read_text())
    (scales,) = facts["multiscales"]
    assert scales["version"] == facts["image-label"]["version"] == "0.4"
    assert scales["axes"] == [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    assert [d["path"] for d in scales["datasets"]] == ["0", "1", "2"]
    transforms = [d["coordinateTransformations"] for d in scales["datasets"]]
    assert transforms[1] == [{"type": "scale", "scale": pytest.approx([1.0, 0.5])}]
    assert facts["image-label"]["colors"][0] == {"label-value": 0, "rgba": [255, 0, 0, 255]}
    assert facts["image-label"]["properties"][1] == {"label-value": 1, "name": "stroma"}
    array = json.loads((labels / "0" / ".zarray").read_text())
    assert (array["zarr_format"], array["dimension_separator"], array["chunks"]) == (2, "/", [1024, 1024])


def test_labels_are_a_class_map(labels):
    with open_class_maps(labels) as (found,):
        assert (found.size, found.nodata, found.name(1), found.color(0)) == (SIZE, 255, "stroma", (255, 0, 0))
        assert (found.resolution.row, found.resolution.col) == pytest.approx((0.5e-6, 0.25e-6))
        assert np.array_equal(np.concatenate(list(found.strips())), IDS)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 2)))
def test_the_majority_of_four(values):
    even = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2)), mode="edge")
    found = majority(values)
    for r, c in np.ndindex(found.shape):
        four = even[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].ravel().tolist()
        assert four.count(int(found[r, c])) == max(four.count(v) for v in four)


def test_predictions_as_labels(tmp_path):
    spec = OutputSpec(
        tmp_path,
        "slide",
        SIZE,
        CLASSES,
        None,
        32,
        (32,),
        Resolution(0.5e-6, 0.5e-6),
        ("classes", "polygons"),
        "ome-zarr",
    )
    calm = np.repeat(np.repeat(IDS[:75, :105], 20, 0), 20, 1)

    def blocks():
        return [(window, {"classes": calm[window.within(Window.of(SIZE))]}) for window in BlockGrid(SIZE, 1024)]

    classes, polygons = write_outputs(blocks(), spec)
    assert classes.is_dir()
    feature = json.loads(polygons.read_text())["features"][0]
    assert feature["properties"]["area_um2"] == pytest.approx(feature["properties"]["area_px"] / 4)
    write_outputs(blocks(), OutputSpec(tmp_path, "slide", SIZE, CLASSES, None, 32, (32,), overwrite=True))
    assert write_polygons(tmp_path / "slide.classes.tif", polygons, overwrite=True) > 0


@pytest.mark.parametrize("file_format", ["geotiff", "ome-zarr"])
def test_polygons_are_in_pixels_of_the_image_as_it_is_stored(tmp_path, file_format):
    stored, ids = Size(SIZE.height * 2, SIZE.width * 3), np.zeros((SIZE.height, SIZE.width), np.uint8)
    ids[100:300, 200:500] = 1
    changes = {"outputs": ("classes", "polygons"), "format": file_format, "stored_size": stored}
    spec = OutputSpec(tmp_path, "slide", SIZE, CLASSES, None, 32, (32,), **changes)
    *_, polygons = write_outputs([(Window.of(SIZE), {"classes": ids})], spec)
    square = json.loads(polygons.read_text())["features"][0]
    assert square["properties"]["area_px"] == 200 * 300
    corners = np.array(square["geometry"]["coordinates"][0])
    assert [*corners.min(axis=0), *corners.max(axis=0)] == [600, 200, 1500, 600]


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "labels.ome.zarr"
    with pytest.raises(OutputWriteError, match=r"labels\.ome\.zarr"), open_labels(path, SIZE, CLASSES, None) as raster:
        shutil.rmtree(path / "0")
        (path / "0").write_text("in the way")
        raster.write(Window(0, 0, 9, 9), np.zeros((9, 9), np.uint8))
