"""A file that is shorter than it says is told, before anything is computed with it."""

import logging

import numpy as np
import pytest
from data_toys import smooth_image, write

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
