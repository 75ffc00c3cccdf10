"""What is turned when it is shown is read as it is shown, whatever is asked of it."""

import numpy as np
import pytest
import tifffile
from data_toys import smooth_image
from PIL import Image, ImageOps

from foveate.data.convert import convert
from foveate.data.readers import open_image
from foveate.data.readers.base import Address
from foveate.data.readers.derived import stored_orientation
from foveate.geometry import Size, Window

HEIGHT, WIDTH = 301, 414
TAG = 274


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
