"""Readers on top of another: of another pixel size, and turned as the file says."""

import numpy as np
import pytest
import tifffile
from data_toys import TRANSFORM, footprint_means, smooth_image, write
from PIL import Image, ImageOps

from foveate.data.pyramids import convert
from foveate.data.readers import ArrayReader, Georeference, Resolution, open_image
from foveate.data.readers._gdal_checks import stored_orientation
from foveate.data.readers.base import Address
from foveate.data.readers.derived import RescaledReader, resized, size_at
from foveate.geometry import Size, Window

HEIGHT, WIDTH = 301, 414
TAG = 274


def test_geometry_follows(tmp_path):
    pixels = smooth_image(3, 200, 300, np.uint8)
    place = Georeference("", (2.0, 0.0, 100.0, 0.0, -2.0, 500.0))
    inner = ArrayReader(pixels, georeference=place, resolution=Resolution(2.0, 2.0))
    with RescaledReader(inner, Size(50, 100)) as reader:
        assert reader.resolution == Resolution(8.0, 6.0)
        assert reader.georeference.transform == (6.0, 0.0, 100.0, 0.0, -8.0, 500.0)
    with pytest.raises(ValueError, match="closed"):
        inner.read(Window(0, 0, 5, 5))


def test_a_level_that_fits_is_read_as_it_is(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(3, 512, 640, np.uint8), driver="GTiff", tiled=True, overviews=(2, 4))
    with open_image(path) as stored, RescaledReader(open_image(path), Size(256, 320)) as reader:
        assert reader.levels == (Size(256, 320), Size(128, 160))
        window = Window(30, 40, 50, 60)
        np.testing.assert_array_equal(reader.read(window), stored._read_level(1, window))
        wide = Window(0, 0, 256, 320)
        np.testing.assert_array_equal(reader.read(wide, Size(128, 160)), stored._read_level(2, Window(0, 0, 128, 160)))


def test_memory_is_bounded_where_a_view_is_much_coarser(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", smooth_image(1, 800, 900, np.uint8), driver="GTiff", tiled=True)
    with RescaledReader(open_image(path), Size(80, 90)) as reader:
        whole = reader.read(Window.of(reader.size))
        monkeypatch.setattr(reader, "strip_bytes", 1 << 16)
        sizes, original = [], reader._inner._read_level
        monkeypatch.setattr(reader._inner, "_read_level", lambda lv, w: sizes.append(w.size.pixels) or original(lv, w))
        np.testing.assert_array_equal(reader.read(Window.of(reader.size)), whole)
        assert max(sizes) * 4 <= 2 << 16


def test_the_same_scene_scanned_twice_looks_the_same():
    """A scan at 40x and one at 20x, read at one pixel size."""
    fine = smooth_image(3, 400, 600, np.float32)
    coarse = footprint_means(fine, 200, 300).astype(np.float32)
    twice = ArrayReader(fine, resolution=Resolution(0.25e-6, 0.25e-6))
    once = ArrayReader(coarse, resolution=Resolution(0.5e-6, 0.5e-6))
    readers = [resized(reader, size_at(reader, reader.resolution, 0.8e-6)) for reader in (twice, once)]
    assert readers[0].size == readers[1].size == Size(125, 188)
    window, size = Window(-10, 40, 80, 80), Size(32, 32)
    np.testing.assert_allclose(readers[0].read(window, size), readers[1].read(window, size), atol=0.01)


def test_georeferenced_file(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(1, 100, 120, np.uint8), driver="GTiff", georeferenced=True)
    with open_image(path) as reader:
        size = size_at(reader, reader.resolution, 5.0)
        assert size == Size(50, 60)
        assert resized(reader, reader.size) is reader
        found = resized(reader, size).georeference
        assert found.transform == pytest.approx((5.0, 0.0, TRANSFORM.c, 0.0, -5.0, TRANSFORM.f))


def stored(bands=3):
    return smooth_image(bands, HEIGHT, WIDTH, np.uint8)


def picture(path, pixels, orientation, **options):
    exif = Image.Exif()
    exif[TAG] = orientation
    Image.fromarray(pixels.transpose(1, 2, 0).squeeze()).save(path, exif=exif, **options)
    return path


def tiff(path, pixels, orientation, byteorder="<", **options):
    extra = [(TAG, "H", 1, orientation, True)]
    shown = {"photometric": "rgb", "planarconfig": "separate"} if len(pixels) == 3 else {"photometric": "minisblack"}
    with tifffile.TiffWriter(path, byteorder=byteorder, **options) as file:
        file.write(pixels, extratags=extra, metadata=None, tile=(64, 64), **shown)
    return path


FILES = {
    "jpeg": lambda folder, o: picture(folder / "i.jpg", stored(), o, quality=95),
    "png": lambda folder, o: picture(folder / "i.png", stored(), o),
    "tiff": lambda folder, o: tiff(folder / "i.tif", stored(), o),
    "big-endian": lambda folder, o: tiff(folder / "i.tif", stored(), o, ">"),
    "bigtiff": lambda folder, o: tiff(folder / "i.tif", stored(), o, bigtiff=True),
}


def as_shown(path, orientation):
    """By Pillow; its reader of TIFF turns them itself."""
    if path.suffix == ".tif":
        turn = Image.fromarray(stored().transpose(1, 2, 0))
        exif = turn.getexif()
        exif[TAG] = orientation
        return np.array(ImageOps.exif_transpose(turn)).transpose(2, 0, 1)
    return np.array(ImageOps.exif_transpose(Image.open(path))).transpose(2, 0, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FILES)
def test_every_orientation_of_every_kind(tmp_path, kind, orientation):
    path = FILES[kind](tmp_path, orientation)
    expected = as_shown(path, orientation)
    with open_image(path) as image:
        assert image.size == image.stored_size == Size(*expected.shape[1:])
        assert ("orientation" in "".join(image.remarks)) == (orientation != 1)
        assert all(a.pixels > b.pixels for a, b in zip(image.levels, image.levels[1:], strict=False))
        # Two decoders of JPEG differ by a few levels.
        far = 0 if kind != "jpeg" else 4
        whole = image.read(Window.of(image.size)).astype(int)
        assert np.abs(whole - expected).max() <= far
        part = Window(11, 23, 40, 30)
        np.testing.assert_array_equal(image.read(part), whole[:, 11:51, 23:53])
        half = image.read(Window(0, 0, 300, 300), Size(75, 75))
        means = whole[:, :300, :300].reshape(3, 75, 4, 75, 4).mean(axis=(2, 4))
        assert np.abs(half - means).max() <= 4


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_masks_and_missing_pixels_turn_too(tmp_path, orientation):
    pixels = np.concatenate([stored(), np.full((1, HEIGHT, WIDTH), 255, np.uint8)])
    pixels[3, :50] = 0
    path = picture(tmp_path / "i.png", pixels, orientation)
    shown = np.array(ImageOps.exif_transpose(Image.open(path)))
    with open_image(path) as image:
        np.testing.assert_array_equal(image.valid(Window.of(image.size)), shown[..., 3] > 0)
        np.testing.assert_array_equal(image.read_known(Window.of(image.size)).known[0], shown[..., 3] > 0)
    labels = picture(tmp_path / "m.png", stored(1), orientation)
    with open_image(labels) as mask:
        found = mask.read(Window.of(mask.size))[0]
    np.testing.assert_array_equal(found, np.array(ImageOps.exif_transpose(Image.open(labels))))


def test_a_large_photograph_is_turned_as_it_is_read(tmp_path):
    path = picture(tmp_path / "i.png", stored(), 8)
    with open_image(path, decode_limit_bytes=1000) as image:
        found = image.read(Window.of(image.size))
    np.testing.assert_array_equal(found, as_shown(path, 8))


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_conversion_stores_what_is_shown(tmp_path, kind):
    path, made = FILES[kind](tmp_path, 6), tmp_path / "o.tif"
    convert(path, made)
    with open_image(path) as image, open_image(made) as copy:
        assert (copy.size, copy.remarks) == (image.size, ())
        np.testing.assert_array_equal(copy.read(Window.of(copy.size)), image.read(Window.of(image.size)))


def test_an_exif_block_after_the_pixels_counts(tmp_path):
    path = picture(tmp_path / "i.png", stored(), 6)
    data = path.read_bytes()
    place = data.index(b"eXIf") - 4
    length = int.from_bytes(data[place : place + 4], "big") + 12
    moved = data[:place] + data[place + length : -12] + data[place : place + length] + data[-12:]
    path.write_bytes(moved)
    with open_image(path) as image:
        assert image.size == Size(WIDTH, HEIGHT)


def test_maps_are_taken_as_they_are_stored(tmp_path):
    path, keys = tmp_path / "i.tif", [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632]
    place = [(33550, "d", 3, (2.0, 2.0, 0.0)), (33922, "d", 6, (0, 0, 0, 5e5, 54e5, 0)), (34735, "H", 16, keys)]
    extra = [(TAG, "H", 1, 6), *place]
    tifffile.imwrite(path, stored(1), photometric="minisblack", metadata=None, extratags=extra)
    with open_image(path) as image:
        assert image.georeference.transform == pytest.approx((2, 0, 5e5, 0, -2, 54e5))
        assert image.size == Size(HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_what_is_no_orientation_is_none(tmp_path, orientation):
    with open_image(picture(tmp_path / "i.jpg", stored(), orientation)) as image:
        assert (image.size, image.remarks) == (Size(HEIGHT, WIDTH), ())


@pytest.mark.parametrize("kind", FILES)
def test_files_cut_short_have_none(tmp_path, kind):
    data = FILES[kind](tmp_path, 6).read_bytes()
    for length in (1, 9, 15, 30, 45, 120):
        path = tmp_path / "cut"
        path.write_bytes(data[:length])
        assert stored_orientation(Address.of(path)) in (1, 6)
