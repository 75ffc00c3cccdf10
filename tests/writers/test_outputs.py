import json
import os
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch

from foveate.data.readers.gdal import open_dataset
from foveate.data.sections import ClassConfig
from foveate.errors import ConfigError, ImageReadError, OutputExistsError, OutputWriteError
from foveate.geometry import CellGrid, Georeference, Size, Window
from foveate.inference.block import block_layers
from foveate.inference.config import InferenceConfig, PolygonsConfig
from foveate.inference.plan import BlockGrid
from foveate.membership import Exclusive
from foveate.tiff.raster import FULL, NODATA, quiet
from foveate.writers.outputs import OutputSpec, table_path, write_outputs

CLASSES = [ClassConfig(name=name, color=color) for name, color in (("sea", "#0000ff"), ("rock & sand", "#804020"))]
SIZE, CELL = Size(700, 1100), 32
COARSE = torch.randn(1, 2, 35, 55, generator=torch.Generator().manual_seed(0))
LOGITS = 5 * torch.nn.functional.interpolate(COARSE, (700, 1100), mode="bilinear")[0]
VIEWS = np.random.default_rng(0).random((22, 35), dtype=np.float32)
EVERYTHING = InferenceConfig(outputs=("polygons", "foveation", "entropy", "confidence", "probabilities")).outputs
UTM = Georeference(rasterio.CRS.from_epsg(32633).to_wkt(), (0.5, 0, 4e5, 0, -0.5, 5e6))


def spec(folder, **changes):
    return OutputSpec(folder, "scene", SIZE, CLASSES, UTM, CELL, (32, 64), **changes)


def blocks(side=256, outputs=EVERYTHING, upto=None):
    """Blocks row by row, with the cells they hold."""
    grid = CellGrid(SIZE, CELL)
    for window in list(BlockGrid(SIZE, side))[:upto]:
        layers = block_layers(LOGITS[:, *window.within(Window.of(SIZE))], outputs, Exclusive())
        top, left = window.top // CELL, window.left // CELL
        bottom, right = min(grid.rows, -(-window.bottom // CELL)), min(grid.cols, -(-window.right // CELL))
        yield window, {**layers, "foveation": VIEWS[top:bottom, left:right]}


def read(path):
    with open_dataset(path) as file:
        return file.read()


def test_every_output_is_written_and_nothing_else(tmp_path):
    wanted = spec(tmp_path, outputs=EVERYTHING)
    written = write_outputs(blocks(), wanted)
    assert written == list(wanted.paths().values())
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in written} | {"scene.classes.tif.aux.xml"}
    expected = block_layers(LOGITS, EVERYTHING, Exclusive())
    for name in ("classes", "confidence", "entropy", "probabilities"):
        assert np.array_equal(read(wanted.paths()[name]).squeeze(), expected[name]), name
    assert np.array_equal(read(wanted.paths()["foveation"])[0], VIEWS)
    collection = json.loads(wanted.paths()["polygons"].read_text())
    assert sum(f["properties"]["area_px"] for f in collection["features"]) == SIZE.pixels


@pytest.mark.parametrize("side", [96, 512, 2048])
def test_blocks_of_any_size_give_the_same_files(tmp_path, side):
    parts, whole = (spec(tmp_path / name, outputs=EVERYTHING) for name in ("parts", "whole"))
    for ours, theirs in zip(write_outputs(blocks(side), parts), write_outputs(blocks(256), whole), strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name


def test_what_the_files_say_about_themselves(tmp_path):
    paths = spec(tmp_path, outputs=EVERYTHING).paths()
    write_outputs(blocks(), spec(tmp_path, outputs=EVERYTHING))
    with open_dataset(paths["classes"]) as classes:
        assert classes.tags()["class_1"] == "rock & sand"
        assert classes.colormap(1)[1] == (0x80, 0x40, 0x20, 255)
        assert classes.nodata == NODATA
        assert classes.crs.to_epsg() == 32633
        assert tuple(classes.transform)[:6] == UTM.transform
    with open_dataset(paths["probabilities"]) as probabilities:
        assert probabilities.descriptions == ("sea", "rock & sand")
        assert probabilities.scales == (1 / FULL,) * 2
        assert probabilities.nodata == NODATA
    with open_dataset(paths["foveation"]) as fov:
        assert fov.transform.a == 0.5 * CELL
        assert fov.tags()["cell"] == "32"


def test_gdal_finds_the_names_and_colours_of_the_classes(tmp_path):
    """A virtual copy of the class map lists what GDAL knows about it."""
    write_outputs(blocks(), spec(tmp_path))
    quiet()
    rasterio.shutil.copy(tmp_path / "scene.classes.tif", tmp_path / "copy.vrt", driver="VRT")
    root = ElementTree.parse(tmp_path / "copy.vrt").getroot()
    assert [e.text for e in root.iter("Category")] == ["sea", "rock & sand"]
    rows = [[e.text for e in row] for row in root.iter("Row")]
    assert rows == [["0", "sea", "0", "0", "255"], ["1", "rock & sand", "128", "64", "32"]]
    assert table_path(tmp_path / "scene.classes.tif").exists()


def test_a_block_that_was_not_read_stays_unknown(tmp_path):
    config = spec(tmp_path, outputs=("classes", "foveation"))
    first = next(blocks())
    write_outputs([(first[0], {"classes": first[1]["classes"]})], replace(config, outputs=("classes", "foveation")))
    assert np.isnan(read(config.paths()["foveation"])).all()
    assert (read(config.paths()["classes"])[0, 256:] == NODATA).all()


def test_a_failure_leaves_what_was_there(tmp_path):
    def broken():
        yield from blocks(upto=3)
        raise ImageReadError("the disk is gone")

    with pytest.raises(ImageReadError, match="the disk is gone"):
        write_outputs(broken(), spec(tmp_path / "new", outputs=EVERYTHING))
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "scene.fov.tif").write_text("precious")
    with pytest.raises(ImageReadError):
        write_outputs(broken(), spec(tmp_path, overwrite=True))
    assert (tmp_path / "scene.fov.tif").read_text() == "precious"


def test_existing_results_are_refused_before_any_work(tmp_path):
    (tmp_path / "scene.polygons.geojson").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"polygons\.geojson"):
        write_outputs(iter([]), spec(tmp_path, outputs=EVERYTHING))
    assert [p.name for p in tmp_path.iterdir()] == ["scene.polygons.geojson"]
    write_outputs(blocks(), spec(tmp_path, outputs=EVERYTHING, overwrite=True))
    assert json.loads((tmp_path / "scene.polygons.geojson").read_text())["features"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    left = tmp_path / ".scene.writing"
    left.mkdir()
    (left / "scene.classes.tif").write_text("torn")
    write_outputs(blocks(), spec(tmp_path))
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_a_folder_that_may_not_be_written_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputWriteError, match="scene"):
        write_outputs(blocks(), spec(tmp_path))


def test_a_file_in_the_way_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputWriteError, match="scene"):
        write_outputs(blocks(), spec(tmp_path / "out"))


def test_what_cannot_be_made_is_known_before_any_work(tmp_path):
    config = PolygonsConfig.parse({"leave_out": ["sky"]})
    with pytest.raises(ConfigError, match=r"no class 'sky' .* has sea, rock & sand"):
        replace(spec(tmp_path), georeference=None, outputs=("classes", "polygons"), polygons=config)
    replace(spec(tmp_path), georeference=None, polygons=config)  # nobody asks for polygons


def test_a_missing_extra_is_known_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("foveate.writers.class_map.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"foveate\[zarr\]"):
        spec(tmp_path, format="ome-zarr")
