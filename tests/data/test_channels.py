import numpy as np
import pytest
import rasterio
import torch
from data_toys import data_config, write

from foveate.data.channels import Normalisation, select_channels
from foveate.data.readers import ArrayReader, open_image
from foveate.errors import DatasetError


def reader(bands):
    return ArrayReader(np.zeros((bands, 4, 4), np.uint8), name="scene.tif")


@pytest.mark.parametrize(
    ("bands", "wanted", "channels", "expected"),
    [
        (3, None, 3, [0, 1, 2]),
        (1, None, 3, [0, 0, 0]),
        (5, [4, 3, 2], 3, [3, 2, 1]),
        (5, [2], 3, [1, 1, 1]),
        (5, None, 5, [0, 1, 2, 3, 4]),
    ],
)
def test_selection(bands, wanted, channels, expected):
    assert select_channels(reader(bands), wanted, channels) == expected


@pytest.mark.parametrize(
    ("bands", "wanted", "channels", "message"),
    [
        (5, None, 3, r"scene\.tif has 5 bands, but the network takes 3.*data\.bands, for example \[1, 2, 3\]"),
        (1, None, 4, "set data.in_channels to 1"),
        (3, [1, 2, 4], 3, r"has 3 bands; data\.bands asks for \[1, 2, 4\]"),
    ],
)
def test_mismatch(bands, wanted, channels, message):
    with pytest.raises(DatasetError, match=message):
        select_channels(reader(bands), wanted, channels)


def test_palette_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8), driver="GTiff", georeferenced=True)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (255, 0, 0, 255)})
    with open_image(path) as image, pytest.raises(DatasetError, match=r"colour table.*gdal_translate -expand rgb"):
        select_channels(image, None, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_normalise(tmp_path, dtype):
    config = data_config(tmp_path, mean=[0.1, 0.2, 0.3], std=[1, 2, 4])
    normalisation = Normalisation.of(config, np.dtype("uint8"))
    raw = torch.arange(2 * 5 * 3 * 4 * 4).reshape(2, 5, 3, 4, 4).remainder(256).to(dtype)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2, 4])
    expected = (raw / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(normalisation(raw), expected, check_dtype=False)
    assert normalisation(raw).is_floating_point()


def test_range_of_the_type(tmp_path):
    config = data_config(tmp_path)
    scales = {name: Normalisation.of(config, np.dtype(name)).scale for name in ("uint8", "uint16", "float32")}
    assert scales == {"uint8": 255, "uint16": 65535, "float32": 1}
    assert Normalisation.of(data_config(tmp_path, scale=4000), np.dtype("int16")).scale == 4000
    with pytest.raises(DatasetError, match=r"int16 have no obvious range; set data\.scale"):
        Normalisation.of(config, np.dtype("int16"))


def test_what_is_no_number_becomes_the_mean():
    batch = torch.tensor([0.5, torch.nan, torch.inf]).view(1, 1, 1, 3)
    found = Normalisation(2.0, (0.1,), (0.5,))(batch)
    assert found.flatten().tolist() == pytest.approx([0.3, 0.0, torch.inf])
