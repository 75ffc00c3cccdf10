"""Values that mean nothing count in no mean, whatever the file and the way it says so."""

import numpy as np
import pytest
import torch
from data_toys import footprint_means, smooth_image, write
from rasterio.enums import ColorInterp, Resampling
from reader_toys import write_npy, write_zarr

from foveate.data.config import DataConfig
from foveate.data.images import SampleReader, open_working, working
from foveate.data.locations import LocationSpec
from foveate.data.manifest import Sample
from foveate.data.pyramids import with_overviews
from foveate.data.readers import ArrayReader, open_image
from foveate.data.readers.derived import RescaledReader
from foveate.data.readers.gdal import open_dataset
from foveate.geometry import Size, Window
from foveate.inference.source import PixelSource
from foveate.patches import ScaleSet
from foveate.reporting.panels import image_picture
from oracles import mirrored

HEIGHT, WIDTH = 150, 213
TILES = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64}
STEPS = {"uint8": 10, "int16": 2600, "float32": 10 / 255}  # twice the noise
LOWEST = float(np.finfo(np.float32).min)
CLASSES = [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#ffffff"}]


def holes() -> np.ndarray:
    """Stripes, single pixels and a block without values."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((x + y) % 40 < 12) | ((7 * x + 3 * y) % 31 == 0) | ((y < 40) & (x > 150))


def broken(dtype: str, value: float, bands: int = 3) -> np.ndarray:
    pixels = smooth_image(bands, HEIGHT, WIDTH, dtype)
    pixels[:, holes()] = value
    return pixels


def tagged(dtype, value, **options):
    return lambda folder: write(folder / "i.tif", broken(dtype, value), nodata=value, **TILES, **options)


def untagged(value):
    return lambda folder: write(folder / "i.tif", broken("float32", value), **TILES)


def with_overviews_in_file(folder):
    path = tagged("int16", -9999)(folder)
    with open_dataset(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    return path


def with_mask(folder):
    path = write(folder / "i.tif", broken("uint8", 255), **TILES)
    with open_dataset(path, "r+") as file:
        file.write_mask(~holes())
    return path


def with_alpha(folder):
    pixels = np.concatenate([broken("uint8", 255), np.where(holes(), 0, 255).astype(np.uint8)[None]])
    return write(folder / "i.png", pixels, driver="PNG", georeferenced=False)


FILES = {
    "minus 9999": tagged("int16", -9999),
    "overviews": with_overviews_in_file,
    "byte": tagged("uint8", 0),
    "lowest float": tagged("float32", LOWEST),
    "float minus 9999": tagged("float32", -9999.0),
    "nan": tagged("float32", np.nan),
    "nan untagged": untagged(np.nan),
    "inf untagged": untagged(np.inf),
    "minus inf untagged": untagged(-np.inf),
    "lowest float untagged": untagged(LOWEST),
    "mask": with_mask,
    "alpha": with_alpha,
    "npy": lambda folder: write_npy(folder / "i.npy", broken("float32", np.nan)),
    "zarr": lambda folder: write_zarr(folder / "i.zarr", broken("float32", np.inf)),
}


@pytest.fixture(params=FILES)
def path(request, tmp_path):
    return FILES[request.param](tmp_path)


def restated(reader, window, size):
    """Means over what is known of each footprint, and whether anything is; a slow, obvious way."""
    dtype = reader.dtype.name
    known = mirrored(np.broadcast_to(~holes(), (3, HEIGHT, WIDTH)).astype(np.float64), *_sides(window))
    pixels = mirrored(smooth_image(3, HEIGHT, WIDTH, dtype).astype(np.float64), *_sides(window))
    share = footprint_means(known, size.height, size.width)
    total = footprint_means(pixels * known, size.height, size.width)
    return total / np.where(share > 0, share, 1), share > 0


def _sides(window):
    return window.top, window.left, window.height, window.width


@pytest.mark.parametrize(
    ("window", "size"),
    [
        (Window(0, 0, HEIGHT, WIDTH), Size(HEIGHT, WIDTH)),
        (Window(8, 16, 96, 128), Size(24, 32)),
        (Window(-20, -30, 99, 101), Size(33, 40)),
        (Window(0, 140, 40, 70), Size(4, 7)),
    ],
    ids=["exact", "fourths", "over the border", "in the block"],
)
def test_means_leave_out_what_means_nothing(path, window, size, monkeypatch):
    with open_image(path) as reader:
        expected, there = restated(reader, window, size)
        pixels, known = reader.read_known(window, size)
        known = np.ones_like(there) if known is None else known
        # Levels are means of means, and a mirrored level lies up to two pixels off.
        step, inexact = STEPS[reader.dtype.name], window.top < 0 or len(reader.levels) == 3
        both = there & known
        assert np.abs(pixels[both].astype(np.float64) - expected[both]).max(initial=0) <= step
        assert (there != known).mean() <= (0.25 if inexact else 0)
        monkeypatch.setattr(reader, "strip_bytes", 4096)
        again = reader.read_known(window, size)
        np.testing.assert_array_equal(np.where(known, again.pixels, 0), np.where(known, pixels, 0))


def test_pixels_without_a_value_hold_no_data(path):
    with open_image(path) as reader:
        assert reader.masked
        np.testing.assert_array_equal(reader.valid(Window(10, 20, 90, 150)), ~holes()[10:100, 20:170])


def test_networks_see_the_mean_where_nothing_is_known(path):
    config = DataConfig.parse({"folder": "x", "classes": CLASSES, "scale": 100.0, "mean": [0.1, 0.2, 0.3]})
    with open_working(path, config) as image, open_image(path) as stored:
        whole = image.read(Window.of(image.size))
        expected = np.broadcast_to(np.array([10, 20, 30])[:, None, None], whole.shape)
        np.testing.assert_allclose(whole[:, holes()], expected[:, holes()], rtol=1e-6)
        np.testing.assert_array_equal(whole[:, ~holes()], stored.read(Window.of(stored.size))[:, ~holes()])
        coarse = image.read(Window(-9, -9, 160, 160), Size(20, 20))
        pixels, known = stored.read_known(Window(-9, -9, 160, 160), Size(20, 20))
        known = np.ones_like(pixels, bool) if known is None else known
        np.testing.assert_allclose(coarse, np.where(known, pixels, [[[10]], [[20]], [[30]]]), rtol=1e-6)


def test_at_another_pixel_size_too(path):
    with RescaledReader(open_image(path), Size(75, 107)) as half:
        pixels, known = half.read_known(Window(0, 0, 75, 107))
        expected = footprint_means(np.broadcast_to(~holes(), (3, HEIGHT, WIDTH)).astype(np.float64), 75, 107) > 0
        np.testing.assert_array_equal(np.ones_like(expected) if known is None else known, expected)
        assert np.abs(pixels[expected].astype(np.float64)).max() < 40000  # none of the values that mean nothing


def test_coarse_levels_made_for_a_file_leave_out_what_means_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setattr("foveate.data.pyramids._MOST_PIXELS", 1000)
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    window, size = Window(0, 0, 144, 208), Size(18, 26)
    with open_image(path) as plain:
        expected, there = restated(plain, window, size)
    with with_overviews(open_image(path)) as reader:
        pixels, known = reader.read_known(window, size)
        known = np.ones_like(there) if known is None else known
        assert (known == there).mean() > 0.97
        assert (
            np.abs(pixels[known & there].astype(np.float64) - expected[known & there]).max() <= STEPS[reader.dtype.name]
        )


def test_pictures_are_grey_where_nothing_is_known(path):
    with open_image(path) as image:
        picture = image_picture(image, longest=WIDTH)
        assert (picture[holes()] == picture[holes()][0]).all()
        assert len(np.unique(picture[~holes()])) > 20  # the stretch is that of the values


def test_a_value_that_only_the_user_knows(tmp_path):
    path = write(tmp_path / "i.tif", broken("int16", -9999), **TILES)
    array = write_npy(tmp_path / "i.npy", broken("int16", -9999))
    for file in (path, array):
        with open_image(file, nodata=-9999) as reader:
            np.testing.assert_array_equal(reader.valid(Window.of(reader.size)), ~holes())
        with open_image(file) as reader:
            assert not reader.masked


def test_marks_that_are_not_believed(tmp_path):
    path = with_mask(tmp_path)
    config = DataConfig.parse({"folder": "x", "classes": CLASSES, "nodata": "ignore"})
    with open_working(path, config) as image, open_image(path, use_nodata=False) as stored:
        assert not image.masked
        np.testing.assert_array_equal(image.read(Window(0, 0, 80, 80)), stored.read(Window(0, 0, 80, 80)))


def test_an_alpha_band_that_is_named_is_pixels(tmp_path):
    pixels = smooth_image(4, HEIGHT, WIDTH, "uint8")
    pixels[3, :50] = 0  # near infrared that a program wrote as opacity
    path = write(tmp_path / "i.tif", pixels, **TILES)
    with open_dataset(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with open_image(path) as reader:
        assert (reader.bands, reader.masked) == (3, True)
    config = DataConfig.parse({"folder": "x", "classes": CLASSES, "bands": [4, 1, 2, 3], "in_channels": 4})
    with open_working(path, config) as image:
        assert not image.masked
        np.testing.assert_array_equal(image.read(Window.of(image.size)), pixels)
    with open_working(path, config.model_copy(update={"bands": [1, 2, 3], "in_channels": 3})) as image:
        assert image.masked


def test_whole_images_are_read_as_before():
    pixels = smooth_image(3, HEIGHT, WIDTH, "uint8")
    config = DataConfig.parse({"folder": "x", "classes": CLASSES})
    reader = ArrayReader(pixels)
    assert working(reader, config) is reader
    found = reader.read_known(Window(0, 0, 64, 64), Size(16, 16))
    assert found.known is None
    np.testing.assert_array_equal(found.pixels, reader.read(Window(0, 0, 64, 64), Size(16, 16)))


def test_training_and_prediction_see_no_value_that_means_nothing(path, tmp_path):
    mask = write(tmp_path / "mask.png", np.zeros((1, HEIGHT, WIDTH), np.uint8), driver="PNG")
    config = DataConfig.parse({"folder": "x", "classes": CLASSES, "scale": 40000.0, "workers": 0})
    spec = LocationSpec(ScaleSet(16, (16, 48)), 8, 1, (0, 1), window_labels=True)
    (place,) = SampleReader(config, spec).read(Sample(path, mask, "i", "train"), [(2, 2)])
    with open_working(path, config) as image:
        source = PixelSource.of(image, config, torch.device("cpu"))
        seen = [place.overview, place.patches, source.read(Window(0, 0, 96, 96), Size(48, 48))]
    values = torch.cat([pixels.float().flatten() for pixels in seen])
    assert torch.isfinite(values).all()
    assert values.min() > -1
    assert values.max() < 40000
    around = Window(12, 12, 16, 16)
    np.testing.assert_array_equal(place.label == 255, holes()[12:28, 12:28])
    assert around.size == Size(*place.label.shape)


def test_a_value_that_is_said_of_an_open_array_enters_no_level():
    pixels = np.full((1, 600, 600), 100, np.uint8)
    pixels[:, ::2] = 7
    with ArrayReader(pixels) as reader:
        reader.also_nodata(7)
        found = reader.read_known(Window(0, 0, 600, 600), Size(150, 150))
    assert (found.pixels == 100).all()
    assert found.known is None or found.known.all()
