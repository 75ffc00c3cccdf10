import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch

from foveate.data.readers.base import Georeference
from foveate.errors import OutputExistsError, OutputWriteError
from foveate.foveation.estimators import FixedScale, SoftExpectation
from foveate.geometry import Size, Window
from foveate.inference.sinks.foveation_map import expected_view
from foveate.inference.sinks.geotiff import open_geotiff
from foveate.patches.scales import ScaleSet

PLACE = Georeference(rasterio.CRS.from_epsg(4326).to_wkt(), (0.1, 0, 10, 0, -0.1, 50))


def test_blocks_in_any_order_make_the_raster(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (1300, 700), dtype=np.uint8)
    blocks = [Window(r, c, min(512, 1300 - r), min(512, 700 - c)) for r in (1024, 0, 512) for c in (512, 0)]
    path = tmp_path / "map.tif"
    with open_geotiff(path, Size(1300, 700), "uint8", PLACE, colors=[(1, 2, 3)], tags={"class_0": "sea"}) as raster:
        assert not path.exists()
        for block in blocks:
            raster.write(block, values[block.within(Window(0, 0, 1300, 700))])
    with rasterio.open(path) as written:
        assert np.array_equal(written.read(1), values)
        assert written.crs.to_epsg() == 4326
        assert written.block_shapes == [(512, 512)]
        assert written.overviews(1) == [2, 4]
        assert written.colormap(1)[0] == (1, 2, 3, 255)
    with rasterio.open(path, overview_level=0) as half:
        assert set(np.unique(half.read(1))) <= set(range(5))


def test_a_failure_half_way_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), open_geotiff(tmp_path / "map.tif", Size(9, 9), "uint8", PLACE):
        raise RuntimeError("the network failed")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_map_is_kept(tmp_path):
    (tmp_path / "map.tif").write_text("precious")
    with pytest.raises(OutputExistsError), open_geotiff(tmp_path / "map.tif", Size(9, 9), "uint8", PLACE):
        pass
    assert (tmp_path / "map.tif").read_text() == "precious"


FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from foveate.errors import OutputWriteError
from foveate.geometry import Size, Window
from foveate.inference.sinks.geotiff import open_geotiff

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
noise = np.random.default_rng(0).integers(0, 255, (512, 512), dtype=np.uint8)
try:
    with open_geotiff(Path(sys.argv[1]), Size(2048, 2048), "uint8", None) as raster:
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


def test_writing_outside_the_raster_is_named(tmp_path):
    with (
        pytest.raises(OutputWriteError, match=r"map\.tif"),
        open_geotiff(tmp_path / "map.tif", Size(9, 9), "uint8", PLACE) as raster,
    ):
        raster.write(Window(5, 5, 9, 9), np.zeros((9, 9), np.uint8))


def test_expected_view_is_the_mean_under_the_policy():
    scales = ScaleSet(8, (8, 16, 64))
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).view(3, 1, 1).expand(3, 2, 4)
    torch.testing.assert_close(expected_view(logits, scales, SoftExpectation()), torch.full((2, 4), 24.0))
    torch.testing.assert_close(expected_view(logits, scales, FixedScale(index=2)), torch.full((2, 4), 64.0))
