"""What is refused before anything is allocated, how many files are open, and how much of them is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from data_toys import smooth_image, write
from rasterio.env import get_gdal_config
from reader_toys import write_zarr

from foveate.data.images import ReaderCache
from foveate.data.readers import _gdal_checks, open_image
from foveate.errors import ConfigError, ImageReadError, UnsupportedImageError
from foveate.geometry import Window
from foveate.tiff.raster import small_cache, small_cache_bytes

SIDE = 2_000_000


def vrt(path: Path) -> Path:
    """A few bytes that say they are 4 * 10**12 pixels."""
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    return path


def zarr_array(path: Path) -> Path:
    write_zarr(path, np.zeros((64, 64), np.uint8), zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"shape": [SIDE, SIDE]}))
    return path


def npy(path: Path) -> Path:
    np.save(path, np.zeros((8, 8), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(8, 8)", f"({SIDE}, {SIDE})".encode())[: len(data)])
    return path


def test_absurd_sizes(tmp_path):
    for path in (vrt(tmp_path / "a.vrt"), zarr_array(tmp_path / "a.zarr")):
        with pytest.raises(UnsupportedImageError, match=r"a\.(vrt|zarr) claims 2000000 x 2000000.*FOVEATE_MAX_PIXELS"):
            open_image(path)
    with pytest.raises((ImageReadError, UnsupportedImageError), match=r"a\.npy"):
        open_image(npy(tmp_path / "a.npy"))


def test_the_limit_is_the_callers_then_the_environments(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", smooth_image(1, 40, 50, np.uint8), driver="PNG")
    with pytest.raises(UnsupportedImageError, match="1e\\+03 pixels are allowed"):
        open_image(path, max_pixels=1000)
    monkeypatch.setenv("FOVEATE_MAX_PIXELS", "1.5e3")
    with pytest.raises(UnsupportedImageError, match="1\\.5e\\+03 pixels are allowed"):
        open_image(path)
    open_image(path, max_pixels=2000).close()
    monkeypatch.setenv("FOVEATE_MAX_PIXELS", "many")
    with pytest.raises(ConfigError, match="FOVEATE_MAX_PIXELS is 'many'"):
        open_image(path)
    assert open_image(vrt(tmp_path / "a.vrt"), max_pixels=10**13).size.pixels == SIDE**2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_a_cache_keeps_few_files_open(tmp_path):
    def opened() -> int:
        return sum(str(link.readlink()).startswith(str(tmp_path)) for link in _descriptors())

    paths = []
    for i in range(12):
        pixels = smooth_image(1, 600, 700, np.uint8, seed=i)
        paths.append(
            write(tmp_path / f"{i}.tif", pixels, driver="GTiff", tiled=True, overviews=(2, 4, 8))
            if i % 3
            else _saved(tmp_path / f"{i}.npy", pixels)
        )
    cache = ReaderCache(10**9, max_files=10)
    most = 0
    for path in paths * 2:
        reader = cache.get(path)
        reader.read(Window(0, 0, 8, 8))
        assert reader.handles == (4 if path.suffix == ".tif" else 1)
        most = max(most, opened())
    assert 4 < most <= 10
    cache.close()
    assert opened() == 0


def _descriptors() -> list[Path]:
    return [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


def _saved(path: Path, pixels: np.ndarray) -> Path:
    np.save(path, pixels)
    return path


def test_a_small_cache_is_small_for_a_while_and_never_larger_than_the_usual():
    with rasterio.Env(GDAL_CACHEMAX=2**27):
        with small_cache():
            assert get_gdal_config("GDAL_CACHEMAX") == small_cache_bytes() == 2**25
        assert get_gdal_config("GDAL_CACHEMAX") == 2**27
    with rasterio.Env(GDAL_CACHEMAX=2**20), small_cache():
        assert get_gdal_config("GDAL_CACHEMAX") == 2**20


def test_strips_too_large_to_be_read_whole_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_gdal_checks, "MOST_BLOCK_BYTES", 1 << 20)
    pixels = smooth_image(3, 700, 800, np.uint8)
    path = write(tmp_path / "a.tif", pixels, compress="deflate", blockysize=700, interleave="pixel")
    with pytest.raises(UnsupportedImageError, match=r"a\.tif is stored in blocks of 700 x 800 pixels, 2 MiB each"):
        open_image(path)
    open_image(write(tmp_path / "b.tif", pixels, compress="deflate", blockysize=16, interleave="pixel")).close()
