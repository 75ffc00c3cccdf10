"""Cloud-optimised files from tiles that were compressed before: the same as from pixels, however they were cut."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.readers import open_image
from foveate.data.readers.gdal import open_dataset
from foveate.errors import OutputExistsError, OutputWriteError
from foveate.geometry import Georeference, Size, Window, windows_over
from foveate.tiff.cog import open_tiled, write_cog
from foveate.tiff.raster import NODATA, RasterSpec, open_raster
from foveate.tiff.tiles import Tiling, halved

PLACE = Georeference(rasterio.CRS.from_epsg(4326).to_wkt(), (0.1, 0, 10, 0, -0.1, 50))
SIZE = Size(1300, 1133)


def spec(mode, bands=("",), **more):
    return RasterSpec(SIZE, "uint8", PLACE, bands=bands, nodata=NODATA, overviews=mode, **more)


def noise(bands=1):
    values = np.random.default_rng(0).integers(0, 5, (bands, SIZE.height, SIZE.width), np.uint8)
    values[:, :200, :300] = NODATA
    return values


def levels_of(path):
    with open_image(path) as image:
        sizes = image.levels
    found = []
    for level in range(len(sizes)):
        with open_dataset(path, **({} if level == 0 else {"overview_level": level - 1})) as file:
            found.append(file.read())
    return found


def slow_half(values, mode):
    """Pixel by pixel, as the documentation says it."""
    bands, height, width = values.shape
    result = np.empty((bands, -(-height // 2), -(-width // 2)), np.uint8)
    for place in np.ndindex(result.shape):
        band, row, col = place
        rows, cols = (min(2 * row, height - 1), min(2 * row + 1, height - 1)), (2 * col, min(2 * col + 1, width - 1))
        four = [int(values[band, r, c]) for r in rows for c in cols]
        known = [value for value in four if value != NODATA]
        if not known:
            result[place] = NODATA
        elif mode:
            counts = Counter(four if Counter(four).most_common(1)[0][0] != NODATA else known)
            most = max(counts.values())
            result[place] = next(v for v in known if counts[v] == most)
        else:
            result[place] = (2 * sum(known) + len(known)) // (2 * len(known))
    return result


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000), st.booleans())
def test_four_pixels_become_one(height, width, seed, mode):
    values = np.random.default_rng(seed).choice([0, 1, 7, NODATA], (2, height, width)).astype(np.uint8)
    assert np.array_equal(halved(values, mode), slow_half(values, mode))


@pytest.mark.parametrize("mode", ["mode", "average"])
@pytest.mark.parametrize("bands", [1, 3])
def test_the_file_says_what_gdals_own_says_and_its_levels_are_halves(tmp_path, mode, bands):
    values, names = noise(bands), tuple("abc"[:bands])
    about = spec(mode, names, tags={"class_0": "sea"}, colors=[(1, 2, 3)] if mode == "mode" and bands == 1 else ())
    ours, gdals = tmp_path / "ours.tif", tmp_path / "gdal.tif"
    for path, opened in ((ours, open_tiled), (gdals, open_raster)):
        with opened(path, about) as raster:
            raster.write(Window.of(SIZE), values)
    with open_dataset(ours) as one, open_dataset(gdals) as other:
        assert np.array_equal(one.read(), values)
        assert one.profile == other.profile
        assert (one.tags(), one.descriptions, one.nodata) == (other.tags(), other.descriptions, other.nodata)
        assert one.tags(ns="IMAGE_STRUCTURE") == other.tags(ns="IMAGE_STRUCTURE")
        assert one.overviews(1) == other.overviews(1)
        assert [c.name for c in one.colorinterp] == [c.name for c in other.colorinterp]
        if about.colors:
            assert one.colormap(1)[0] == (1, 2, 3, 255)
    levels = levels_of(ours)
    assert [level.shape[1:] for level in levels] == [(1300, 1133), (650, 567), (325, 284)]
    for finer, coarser in pairwise(levels):
        assert np.array_equal(coarser, halved(finer, mode == "mode"))


@pytest.mark.parametrize("mode", ["mode", "average"])
def test_blocks_of_any_size_in_any_order_cut_by_anybody_give_the_same_bytes(tmp_path, mode):
    values, tiling, about = noise(), Tiling.of(spec(mode)), spec(mode)
    found = set()
    for side in (96, 250, 512, 1024, 2048):
        blocks = list(windows_over(SIZE, side, side))
        np.random.default_rng(side).shuffle(blocks)
        for cut in (True, False):
            path = tmp_path / f"{side}{cut}.tif"
            with open_tiled(path, about) as raster:
                for block in blocks:
                    own = values[:, *block.within(Window.of(SIZE))]
                    raster.write(block, tiling.cut(block, own, tiling.levels_within(side)) if cut else own)
            found.add(path.read_bytes())
    assert len(found) == 1


def test_a_block_makes_its_own_levels_until_one_tile_holds_it():
    tiling = Tiling(Size(100_000, 100_000), 1, True)
    assert [tiling.levels_within(side) for side in (100, 512, 1024, 2048, 1536, 4095)] == [1, 1, 2, 3, 3, 1]


def test_large_rasters_get_eight_bytes_for_a_place_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("foveate.tiff.cog._CLASSIC", 1000)
    values = noise()
    with open_tiled(tmp_path / "big.tif", spec("mode")) as raster:
        raster.write(Window.of(SIZE), values)
    assert (tmp_path / "big.tif").read_bytes()[:4] == b"II\x2b\0"
    levels = levels_of(tmp_path / "big.tif")
    assert np.array_equal(levels[0], values)
    assert np.array_equal(levels[2], halved(halved(values, True), True))


def test_what_nobody_wrote_is_not_known(tmp_path):
    with open_tiled(tmp_path / "map.tif", spec("mode")) as raster:
        raster.write(Window(0, 0, 512, 512), np.ones((512, 512), np.uint8))
    levels = levels_of(tmp_path / "map.tif")
    assert (levels[0][0, :512, :512] == 1).all()
    assert (levels[0][0, 512:] == NODATA).all()
    assert (levels[1][0, 256:] == NODATA).all()


def test_a_failure_leaves_nothing_and_what_is_there_is_kept(tmp_path):
    with pytest.raises(RuntimeError), open_tiled(tmp_path / "map.tif", spec("mode")):
        raise RuntimeError("the network failed")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "map.tif").write_text("precious")
    with pytest.raises(OutputExistsError), open_tiled(tmp_path / "map.tif", spec("mode")):
        pass
    assert (tmp_path / "map.tif").read_text() == "precious"


def test_a_full_disk_and_a_block_outside_are_errors(tmp_path):
    with (
        pytest.raises(OutputWriteError, match="not inside"),
        open_tiled(tmp_path / "map.tif", spec("mode")) as raster,
    ):
        raster.write(Window(1200, 0, 200, 9), np.zeros((200, 9), np.uint8))

    def full(place):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), ThreadPoolExecutor(1) as pool:
        write_cog(tmp_path / "map.tif", spec("mode"), full, levels=1, pool=pool)
    assert not list(tmp_path.glob("*overviews*"))
