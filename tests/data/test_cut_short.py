"""A file that is shorter than it says is told, before anything is computed with it."""

import logging

import numpy as np
import pytest
import rasterio
from data_toys import smooth_image, write

from foveate.data.pyramids import convert
from foveate.data.readers import open_image
from foveate.errors import FoveateError, ImageReadError
from foveate.geometry import Window

TIFFS = {
    "strips": {},
    "tiles": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "compressed": {"compress": "deflate"},
    "overviews": {"overviews": (2, 4)},
    "big": {"bigtiff": "yes"},
    "cog": {"driver": "COG", "blocksize": 128},
    "big endian": {"endianness": "big"},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_tiff_is_told(tmp_path, caplog, options, share):
    path = write(tmp_path / "a.tif", smooth_image(3, 150, 170, np.uint8), **options)
    data = path.read_bytes()
    with open_image(path) as reader:
        whole = reader.read(Window.of(reader.size))
    assert caplog.text == ""
    path.write_bytes(data[: int(share * len(data))])
    with caplog.at_level(logging.WARNING, "foveate"):
        try:
            with open_image(path) as reader:
                found = reader.read(Window.of(reader.size))
        except FoveateError as error:
            assert "a.tif" in str(error)
        else:
            assert np.array_equal(found, whole) or f"{path} is truncated" in caplog.text


def test_a_tiff_without_its_last_directory_is_told(tmp_path, caplog):
    path = write(tmp_path / "a.tif", smooth_image(3, 150, 170, np.uint8), overviews=(2, 4))
    path.write_bytes(path.read_bytes()[:-40])
    with open_image(path):
        assert f"{path} is truncated" in caplog.text


def test_bytes_beside_a_header_that_names_more_are_refused(tmp_path):
    path = write(tmp_path / "a.dat", smooth_image(3, 150, 170, np.uint8), driver="ENVI")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ImageReadError, match=r"a\.dat has 76499 bytes, but its header says 76500: the file is truncated"
    ):
        open_image(path)


def with_damage(path, start, data):
    """The file with other bytes within the second tile of its finest level."""
    with rasterio.open(path) as file:
        place = int(file.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
        length = int(file.get_tag_item("BLOCK_SIZE_1_0", "TIFF", bidx=1))
    first = place + int(start * length)
    whole = path.read_bytes()
    last = first + len(data) if data else place + length
    path.write_bytes(whole[:first] + (data or bytes(last - first)) + whole[last:])
    return path


@pytest.mark.parametrize(("start", "data"), [(0.5, b""), (0.5, b"\x15\x87\x21\x63" * 40), (0, b"")])
def test_a_damaged_tile_of_a_jpeg_tiff_is_refused_every_time_and_the_others_are_read(tmp_path, start, data):
    """GDAL only warns of it, keeps the tile that it made up, and does not warn the next time."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 128, 128)).astype(np.uint8)
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "jpeg", "photometric": "ycbcr"}
    path = write(tmp_path / "a.tif", pixels, **options)
    with open_image(path) as reader:
        whole = reader.read(Window.of(reader.size))
    with_damage(path, start, data)
    with open_image(path) as reader:
        for window in (Window(0, 64, 64, 64), Window(0, 0, 128, 128), Window(0, 64, 64, 64)):
            with pytest.raises(ImageReadError, match=r"a\.tif at .*damaged"):
                reader.read(window)
        for window in (Window(0, 0, 64, 64), Window(64, 0, 64, 128)):
            assert np.array_equal(reader.read(window), whole[:, *window.within(Window.of(reader.size))])
    with pytest.raises(ImageReadError, match=r"a\.tif.*damaged"):
        convert(path, tmp_path / "b.tif")
    assert not (tmp_path / "b.tif").exists()
