import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from foveate.data.readers.gdal import open_dataset
from foveate.errors import OutputExistsError, OutputWriteError
from foveate.geometry import Georeference, Resolution, Size, Window
from foveate.tiff.raster import RasterSpec, open_raster

PLACE = Georeference(rasterio.CRS.from_epsg(4326).to_wkt(), (0.1, 0, 10, 0, -0.1, 50))
SMALL = RasterSpec(Size(9, 9), "uint8", PLACE)
SPEC = RasterSpec(
    Size(1300, 700), "uint8", PLACE, colors=[(1, 2, 3)], tags={"class_0": "sea"}, nodata=255, overviews="mode"
)


def test_blocks_in_any_order_make_the_raster(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (1300, 700), dtype=np.uint8)
    blocks = [Window(r, c, min(512, 1300 - r), min(512, 700 - c)) for r in (1024, 0, 512) for c in (512, 0)]
    path = tmp_path / "map.tif"
    with open_raster(path, SPEC) as raster:
        assert not path.exists()
        for block in blocks:
            raster.write(block, values[block.within(Window(0, 0, 1300, 700))])
    with open_dataset(path) as written:
        assert np.array_equal(written.read(1), values)
        assert written.crs.to_epsg() == 4326
        assert written.block_shapes == [(512, 512)]
        assert written.overviews(1) == [2, 4]
        assert written.colormap(1)[0] == (1, 2, 3, 255)
        assert written.tags()["class_0"] == "sea"
        assert written.nodata == 255
    with open_dataset(path, overview_level=0) as half:
        assert set(np.unique(half.read(1))) <= set(range(5))


def test_a_failure_half_way_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), open_raster(tmp_path / "map.tif", SMALL):
        raise RuntimeError("the network failed")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_map_is_kept(tmp_path):
    (tmp_path / "map.tif").write_text("precious")
    with pytest.raises(OutputExistsError), open_raster(tmp_path / "map.tif", SMALL):
        pass
    assert (tmp_path / "map.tif").read_text() == "precious"


FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from foveate.errors import OutputWriteError
from foveate.geometry import Size, Window
from foveate.tiff.raster import RasterSpec, open_raster

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
noise = np.random.default_rng(0).integers(0, 255, (512, 512), dtype=np.uint8)
try:
    with open_raster(Path(sys.argv[1]), RasterSpec(Size(2048, 2048), "uint8")) as raster:
        for row in range(0, 2048, 512):
            for col in range(0, 2048, 512):
                raster.write(Window(row, col, 512, 512), noise)
except OutputWriteError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ") or not hasattr(resource, "setrlimit"), reason="needs file limits")
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    """A file that may not grow behaves like a full disk: writes fail half-way."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "map.tif")], capture_output=True, text=True, check=True
    )
    assert "refused: could not write" in done.stdout, done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "reason"), [(0, "the disk is full"), (2**40, "Access window out of range")])
def test_writing_outside_the_raster_is_named(tmp_path, monkeypatch, free, reason):
    """And blamed on the disk where that is full, as GDAL does not say so."""
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr("foveate.tiff.raster.shutil.disk_usage", lambda path: usage)
    with (
        pytest.raises(OutputWriteError, match=rf"map\.tif: .*{reason}"),
        open_raster(tmp_path / "map.tif", SMALL) as raster,
    ):
        raster.write(Window(5, 5, 9, 9), np.zeros((9, 9), np.uint8))


def offsets(path):
    """Of the image and its overviews, finest first: where the directory and the first tile lie in the file."""
    with open_dataset(path) as file:
        levels = [None, *range(len(file.overviews(1)))]
        options = [{} if level is None else {"ovr": level} for level in levels]
        directories = [int(file.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, **o)) for o in options]
        tiles = [file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, **o) for o in options]
    return directories, [int(tile) for tile in tiles if tile is not None]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("bands", [("",), ("a", "b", "c")])
def test_the_file_is_cloud_optimised(tmp_path, dtype, bands):
    """The rules of GDAL's validator: tiles, directories first and in order, then pixels, coarsest first."""
    path = tmp_path / "map.tif"
    with open_raster(path, RasterSpec(Size(2100, 1500), dtype, bands=bands)) as raster:
        values = np.random.default_rng(0).integers(0, 255, (len(bands), 2100, 1500)).astype(dtype)
        raster.write(Window(0, 0, 2100, 1500), values)
    directories, tiles = offsets(path)
    with open_dataset(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes == [(512, 512)] * len(bands)
        assert min(file.shape) / max(file.overviews(1)) <= 512
        assert file.descriptions == (bands if bands[0] else (None,))
        assert np.array_equal(file.read(), values)
    assert len(directories) == len(tiles) == 4
    assert directories == sorted(directories)
    assert tiles == sorted(tiles, reverse=True)
    assert directories[-1] < tiles[-1]
    assert not list(tmp_path.glob("*.ovr")) + list(tmp_path.glob("*.xml"))


def test_class_ids_are_never_blended_and_quantities_are(tmp_path):
    stripes = np.tile(np.array([0, 200, 200, 200], np.uint8), (1024, 256))
    for kind in ("mode", "average"):
        path = tmp_path / f"{kind}.tif"
        with open_raster(path, RasterSpec(Size(1024, 1024), "uint8", overviews=kind)) as raster:
            raster.write(Window(0, 0, 1024, 1024), stripes)
        with open_dataset(path, overview_level=0) as half:
            found = set(np.unique(half.read(1)).tolist())
        assert found <= {0, 200} if kind == "mode" else found == {100, 200}, kind


def test_what_is_not_known_stays_out_of_the_means(tmp_path):
    path = tmp_path / "map.tif"
    values = np.full((1024, 1024), 40, np.uint8)
    values[:, ::2] = 255
    with open_raster(path, RasterSpec(Size(1024, 1024), "uint8", nodata=255, scale=0.5)) as raster:
        raster.write(Window(0, 0, 1024, 1024), values)
    with open_dataset(path, overview_level=0) as half:
        assert (half.read(1) == 40).all()
    with open_dataset(path) as file:
        assert (file.scales, file.offsets) == ((0.5,), (0.0,))


def test_the_size_of_a_pixel_is_kept_without_a_place_on_the_ground(tmp_path):
    path = tmp_path / "map.tif"
    with open_raster(path, RasterSpec(Size(9, 9), "uint8", resolution=Resolution(0.5e-6, 0.25e-6))) as raster:
        raster.write(Window(0, 0, 9, 9), np.zeros((9, 9), np.uint8))
    with open_dataset(path) as file:
        tags = file.tags()
    assert float(tags["TIFFTAG_XRESOLUTION"]) == pytest.approx(40000)
    assert float(tags["TIFFTAG_YRESOLUTION"]) == pytest.approx(20000)
    assert tags["TIFFTAG_RESOLUTIONUNIT"].startswith("3")


MEMORY = """
import sys
import numpy as np
from pathlib import Path
from foveate.geometry import Size, Window
from foveate.devices import peak_memory_mb
from foveate.tiff.raster import RasterSpec, open_raster

side = int(sys.argv[2])
block = np.zeros((512, 512), np.uint8)
before = peak_memory_mb()
with open_raster(Path(sys.argv[1]), RasterSpec(Size(side, side), "uint8")) as raster:
    for row in range(0, side, 512):
        for col in range(0, side, 512):
            raster.write(Window(row, col, 512, 512), block + (row + col) // 512 % 7)
print(peak_memory_mb() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    def grown(side):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / f"{side}.tif"), str(side)]
        environment = {**os.environ, "GDAL_CACHEMAX": "64"}
        return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    assert grown(32768) < grown(16384) + 30  # MiB; the pixels are 768 MiB more
