"""An image unlike those that a run was trained on is refused, or scaled on purpose, never passed as it is."""

import re

import numpy as np
import pytest
import torch
from data_toys import CLASSES, smooth_image, write
from rasterio.enums import ColorInterp

from foveate.data.channels import Values
from foveate.data.config import DataConfig
from foveate.data.datamodule import FoveateDataModule
from foveate.data.images import open_working
from foveate.data.locations import LocationSpec
from foveate.data.readers import ArrayReader
from foveate.data.readers.gdal import open_dataset
from foveate.errors import DatasetError
from foveate.geometry import Size
from foveate.inference.source import PixelSource
from foveate.patches import ScaleSet

SIZE = (96, 128)
CPU = torch.device("cpu")


def image(path, dtype="uint8", *, bands=3, gain=1.0, names=None, georeferenced=False, scaling=None, pixel=2.5):
    """Waves between 20 and 80 % of the range 0 to `gain` times that of the type (of floats 1)."""
    pixels = smooth_image(bands, *SIZE, np.float32) * gain
    pixels = pixels if np.dtype(dtype).kind == "f" else pixels * np.iinfo(dtype).max
    place = {"crs": "EPSG:32618", "transform": (pixel, 0, 425000, 0, -pixel, 5200000)} if georeferenced else {}
    write(path, pixels.astype(dtype), driver="GTiff", photometric="minisblack", **place)
    with open_dataset(path, "r+") as file:
        file.colorinterp = [ColorInterp[name] for name in names or ["undefined"] * bands]
        if scaling:
            file.scales, file.offsets = [scaling[0]] * bands, [scaling[1]] * bands
    return path


def trained(folder, dtype="uint8", **options):
    """The data section of a run on three such images."""
    changes = {key: options.pop(key) for key in ("scale", "pixel_size", "bands_used", "in_channels") if key in options}
    if "bands_used" in changes:
        changes["bands"] = changes.pop("bands_used")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for name in "abv":
        image(folder / "images" / f"{name}.tif", dtype, **options)
        labels = (np.indices(SIZE).sum(axis=0, keepdims=True) % 2).astype(np.uint8)
        write(folder / "masks" / f"{name}.png", labels, driver="PNG")
    config = DataConfig.parse(
        {"folder": str(folder), "classes": CLASSES, "split": {"val": ["v"]}, "workers": 0, **changes}
    )
    data = FoveateDataModule(config, LocationSpec(ScaleSet(16, (16, 32)), 8, 1, (0, 1)), steps=1)
    data.setup()
    return config.model_copy(update={"trained_on": data.trained_on})


def started(folder, **changes):
    tree = {"folder": str(folder), "classes": CLASSES, "split": {"val": ["v"]}, "workers": 0, **changes}
    spec = LocationSpec(ScaleSet(16, (16, 32)), 8, 1, (0, 1))
    data = FoveateDataModule(DataConfig.parse(tree), spec, steps=1)
    data.setup()
    return data


def source_of(path, config, **changes):
    with open_working(path, config := config.model_copy(update=changes)) as reader:
        return PixelSource.of(reader, config, CPU)


def test_what_a_run_was_trained_on(tmp_path):
    config = trained(tmp_path / "data", "uint16", names=["red", "green", "blue"], georeferenced=True)
    found = config.trained_on
    assert (found.dtype, found.scale, found.bands, found.names) == ("uint16", 65535, 3, ("red", "green", "blue"))
    assert found.pixel_size == (2.5, 2.5)
    assert np.allclose(np.array(found.low) / 65535, 0.2, atol=0.02)
    assert np.allclose(np.array(found.high) / 65535, 0.8, atol=0.02)
    assert DataConfig.parse(config.tree()) == config


@pytest.mark.parametrize(("dtype", "gain"), [("uint8", 1.0), ("uint16", 0.06), ("float32", 1.0), ("float32", 255.0)])
def test_images_of_the_kind_are_taken(tmp_path, dtype, gain):
    config = trained(tmp_path / "data", dtype, gain=gain)
    path = image(tmp_path / "i.tif", dtype, gain=0.8 * gain)
    assert source_of(path, config).normalisation == source_of(path, config, trained_on=None).normalisation


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        (("uint8", 1.0), ("uint16", 1.0)),
        (("uint8", 1.0), ("uint16", 0.06)),
        (("uint8", 1.0), ("uint16", 1 / 257)),
        (("uint8", 1.0), ("float32", 1.0)),
        (("uint8", 1.0), ("float32", 255.0)),
        (("uint16", 1.0), ("uint8", 1.0)),
        (("uint16", 1.0), ("uint16", 0.06)),
        (("uint16", 0.06), ("uint16", 1.0)),
        (("float32", 1.0), ("float32", 255.0)),
        (("float32", 255.0), ("float32", 1.0)),
        (("float32", 1.0), ("uint8", 1.0)),
    ],
)
def test_other_types_and_ranges(tmp_path, was, is_now):
    config = trained(tmp_path / "data", was[0], gain=was[1])
    path = image(tmp_path / "i.tif", is_now[0], gain=is_now[1])
    with pytest.raises(
        DatasetError, match=r"i\.tif differs from the images that the run was trained on.*data\.mismatch"
    ):
        source_of(path, config)
    source_of(path, config, mismatch="allow")
    scaled = source_of(path, config, mismatch="scale")
    assert "divided by" in scaled.notes[-1]
    with open_working(path, config.model_copy(update={"mismatch": "scale"})) as reader:
        values = Values.of(reader, [0, 1, 2])
    trained_high = max(config.trained_on.high) / config.trained_on.scale
    assert values.largest / scaled.normalisation.scale == pytest.approx(trained_high)


@pytest.mark.parametrize(
    ("dtype", "gain", "scale"), [("uint16", 0.0625, 4095), ("float32", 1.0, 1), ("uint16", 1 / 257, 255)]
)
def test_a_scale_on_purpose_is_taken_where_it_fits(tmp_path, dtype, gain, scale):
    config, path = trained(tmp_path / "data"), image(tmp_path / "i.tif", dtype, gain=gain)
    assert source_of(path, config, scale=float(scale)).normalisation.scale == scale
    with pytest.raises(DatasetError, match="and are divided by"):
        source_of(path, config, scale=scale * 1e-5)


def test_other_bands(tmp_path):
    colours = ["red", "green", "blue"]
    config = trained(tmp_path / "data", names=colours)
    grey = image(tmp_path / "grey.tif", bands=1)
    with pytest.raises(DatasetError, match="it has one band, and the run was trained on 3"):
        source_of(grey, config)
    with pytest.raises(DatasetError, match=r"4 bands, but the network takes 3"):
        source_of(image(tmp_path / "four.tif", bands=4), config)
    turned = image(tmp_path / "bgr.tif", names=colours[::-1])
    with pytest.raises(DatasetError, match=r"bands are blue, green, red, and the run was trained on red, green, blue"):
        source_of(turned, config)
    assert source_of(turned, config, bands=[3, 2, 1]).channels == [2, 1, 0]
    source_of(image(tmp_path / "unsaid.tif"), config)


def test_names_that_are_not_of_colours(tmp_path):
    def described(name, texts):
        path = image(tmp_path / name)
        with open_dataset(path, "r+") as file:
            file.descriptions = texts
        return path

    config = trained(tmp_path / "data")
    names = ("B04 2024-05-01", "B03 2024-05-01", "B02 2024-05-01")
    known = config.model_copy(update={"trained_on": config.trained_on.model_copy(update={"names": names})})
    source_of(described("i.tif", [name.replace("2024", "2025") for name in names]), known)
    with pytest.raises(DatasetError, match="its bands are B02"):
        source_of(described("j.tif", names[::-1]), known)


def test_one_band_that_was_repeated_is_not_three(tmp_path):
    config = trained(tmp_path / "data", bands=1)
    path = image(tmp_path / "i.tif")
    with pytest.raises(DatasetError, match="it has 3 bands, and the run was trained on 1"):
        source_of(path, config)
    assert source_of(path, config, bands=[2]).channels == [1, 1, 1]


def test_other_gains(tmp_path):
    config = trained(tmp_path / "data", "uint16", scaling=(1e-4, 0))
    source_of(image(tmp_path / "i.tif", "uint16", scaling=(1e-4, 0)), config)
    with pytest.raises(
        DatasetError, match=r"gain and offset are 0\.0001 and -0\.1, and those of training 0\.0001 and 0"
    ):
        source_of(image(tmp_path / "j.tif", "uint16", scaling=(1e-4, -0.1)), config)


def test_other_pixel_sizes(tmp_path):
    config = trained(tmp_path / "data", georeferenced=True, pixel=1.0)
    assert source_of(image(tmp_path / "a.tif", georeferenced=True, pixel=1.2), config).notes == ()
    noted = source_of(image(tmp_path / "b.tif", georeferenced=True, pixel=2.0), config)
    assert noted.notes == ("its pixels are 2 m wide, and those of training 1 m",)
    far = image(tmp_path / "c.tif", georeferenced=True, pixel=0.1)
    with pytest.raises(DatasetError, match=r"its pixels are 0\.1 m wide, and those of training 1 m"):
        source_of(far, config)
    assert "0.1 m" in source_of(far, config, mismatch="allow").notes[-1]


def test_a_pixel_size_that_is_asked_for_makes_all_alike(tmp_path):
    config = trained(tmp_path / "data", georeferenced=True, pixel=1.0, pixel_size="1 m")
    assert source_of(image(tmp_path / "i.tif", georeferenced=True, pixel=4.5), config).notes == ()


@pytest.mark.parametrize(("dtype", "value"), [("int16", -9999), ("float32", -9999.0), ("uint16", 65535)])
def test_a_value_that_seems_to_mean_nothing_stops_training(tmp_path, dtype, value):
    trained(tmp_path / "data", dtype, gain=0.1, scale=4000.0)
    for path in (tmp_path / "data" / "images").iterdir():
        with open_dataset(path, "r+") as file:
            pixels = file.read()
            pixels[:, ::5] = value
            file.write(pixels)
    message = rf"in .*\.tif, .*of the values are {value:g}, far from all others.*data\.nodata={value:g}"
    with pytest.raises(DatasetError, match=message):
        started(tmp_path / "data", scale=4000.0)
    started(tmp_path / "data", scale=4000.0, nodata=value)
    started(tmp_path / "data", scale=4000.0, mismatch="allow")


@pytest.mark.parametrize(("dtype", "value", "taken"), [("float32", -9999, False), ("int16", -32768, True)])
def test_a_value_that_seems_to_mean_nothing_is_told_of_an_image_to_predict(tmp_path, dtype, value, taken):
    """Values of 16 bits are near enough to those of training to be taken."""
    config = trained(tmp_path / "data", dtype, gain=0.3, scale=1.0)
    path = image(tmp_path / "x.tif", dtype, gain=0.3)
    with open_dataset(path, "r+") as file:
        pixels = file.read()
        pixels[:, :20, :40] = value
        file.write(pixels)
    told = rf"of the values are {value}, far from all others, .*; if this value means no data, set data.nodata={value}$"
    if taken:
        assert re.search(told, source_of(path, config).notes[-1])
    else:
        with pytest.raises(DatasetError, match=told):
            source_of(path, config)
    assert source_of(path, config, nodata=value).notes == ()


def test_images_that_differ_among_themselves_are_noted(tmp_path):
    trained(tmp_path / "data")
    image(tmp_path / "data" / "images" / "b.tif", bands=1)
    data = started(tmp_path / "data")
    assert "b differs from a: it has one band, and the run was trained on 3; choose bands with data.bands" in data.notes


def test_no_pixel_of_bytes_is_read_for_the_comparison(tmp_path, monkeypatch):
    config = trained(tmp_path / "data")
    monkeypatch.setattr(ArrayReader, "read_known", lambda *arguments: pytest.fail("was read"))
    reader = ArrayReader(smooth_image(3, *SIZE, np.uint8))
    assert PixelSource.of(reader, config, CPU).size == Size(*SIZE)
