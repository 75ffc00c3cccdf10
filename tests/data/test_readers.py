"""What the contract test cannot say: decoding once, damaged files, alpha, palettes, in-memory limits."""

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from data_toys import read_with_rasterio, smooth_image, write

from foveate.data.readers import ArrayReader, Georeference, open_image, rasterio_reader
from foveate.data.readers.array import halved
from foveate.data.readers.rasterio_reader import _pyramid
from foveate.errors import FoveateError, ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window

TILED = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


@pytest.mark.parametrize("driver", ["PNG", "JPEG"])
def test_is_decoded_once(tmp_path, monkeypatch, driver):
    path = write(tmp_path / "image", smooth_image(3, 300, 400, np.uint8), driver=driver)
    opened = []
    original = rasterio_reader.open_dataset
    monkeypatch.setattr(
        rasterio_reader, "open_dataset", lambda *args, **kw: opened.append(args) or original(*args, **kw)
    )
    with open_image(path) as reader:
        assert len(opened) == 1  # the header
        for k in range(20):
            reader.read(Window(10 * k, 5 * k, 64, 64), Size(16, 16))
    assert len(opened) == 2


def test_large_image_is_decoded_to_a_temporary_file(tmp_path):
    pixels = smooth_image(3, 600, 700, np.uint8)
    path = write(tmp_path / "image.png", pixels, driver="PNG")
    with open_image(path, decode_limit_bytes=1000) as reader, open_image(path) as in_memory:
        assert reader.resident_bytes == 0
        np.testing.assert_array_equal(reader.read(Window(-9, 30, 90, 91)), in_memory.read(Window(-9, 30, 90, 91)))
        assert reader.levels == in_memory.levels
        window, size = Window(0, 0, 512, 512), Size(64, 64)
        assert np.abs(reader.read(window, size).astype(int) - in_memory.read(window, size)).max() <= 2
        folder = reader._folder.name
        assert list(Path(folder).iterdir())
    assert not Path(folder).exists()


def test_a_temporary_file_is_small_where_the_image_is_plain_and_gone_once_it_is_open(tmp_path):
    path = write(tmp_path / "image.png", np.zeros((3, 600, 700), np.uint8), driver="PNG")
    with open_image(path, decode_limit_bytes=1000) as reader:
        assert not reader.read(Window(500, 600, 90, 90)).any()
        assert [file.name for file in Path(reader._folder.name).iterdir()] == ["lock"]


def test_missing_file():
    with pytest.raises(ImageReadError, match=r"no image at nowhere\.tif"):
        open_image("nowhere.tif")


@pytest.mark.parametrize("content", [b"", b"hello, this is no image", b"\x89PNG\r\n\x1a\nno chunks"])
def test_no_reader_fits(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UnsupportedImageError, match=r"notes\.txt.*Tried .*decoded \(PNG, JPEG\).*rasterio"):
        open_image(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {"driver": "PNG"}), ("a.jpg", {"driver": "JPEG"}), ("a.tif", TILED)],
)
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_truncated_file(tmp_path, name, options, share):
    path = write(tmp_path / name, smooth_image(3, 400, 500, np.uint8), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FoveateError, match=name) as caught, open_image(path) as reader:
        reader.read(Window.of(reader.size))
    assert isinstance(caught.value, ImageReadError)


def test_a_damaged_tile_does_not_spoil_the_others(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(1, 512, 512, np.uint8), **TILED)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_image(path) as reader:
        reader.read(Window(0, 0, 64, 64))
        with pytest.raises(ImageReadError, match=r"a\.tif at Window\(top=448"):
            reader.read(Window(448, 448, 64, 64))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_is_left_out_unless_asked_for(tmp_path, name):
    pixels = smooth_image(4, 40, 50, np.uint8)
    options = {"driver": "PNG"} if name == "a.png" else {"driver": "GTiff", "photometric": "RGB", "alpha": "YES"}
    path = write(tmp_path / name, pixels, **options)
    with open_image(path) as reader:
        assert (reader.bands, reader.alpha) == (3, True)
        np.testing.assert_array_equal(reader.read(Window(0, 0, 40, 50)), pixels[:3])
    with open_image(path, keep_alpha=True) as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 40, 50)), pixels)


def test_palette_is_told(tmp_path):
    path = tmp_path / "a.tif"
    write(path, np.zeros((1, 8, 8), np.uint8), driver="GTiff", photometric="palette", georeferenced=True)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (255, 0, 0, 255)})
    with open_image(path) as reader:
        assert reader.palette


def test_virtual_path(tmp_path):
    pixels = smooth_image(3, 60, 70, np.uint8)
    source = write(tmp_path / "a.tif", pixels, driver="GTiff")
    with open_image(f"/vsisubfile/0,{source}") as reader:
        np.testing.assert_array_equal(reader.read(Window(5, 5, 9, 9)), pixels[:, 5:14, 5:14])


def test_complex_numbers_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((1, 8, 8), np.complex64), driver="GTiff")
    with pytest.raises(UnsupportedImageError, match="complex64"):
        open_image(path)


@pytest.mark.parametrize("array", [np.zeros(4), np.zeros((0, 4)), np.zeros((1, 2, 3, 4)), np.zeros((4, 4), complex)])
def test_array_must_be_an_image(array):
    with pytest.raises(UnsupportedImageError, match="shape"):
        ArrayReader(array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(64 * 64).reshape(64, 64).astype(">u2"),
        np.arange(64 * 64).reshape(64, 64)[::-1, ::-1],
        np.broadcast_to(np.arange(64, dtype=np.float64), (64, 64)),
        np.eye(64, dtype=bool),
        np.eye(64, dtype=np.uint32) * 7,
    ],
    ids=["big-endian", "reversed", "read-only", "bool", "uint32"],
)
def test_any_array(array):
    with ArrayReader(array) as reader:
        np.testing.assert_array_equal(reader.read(Window(-1, 0, 4, 4))[0], array[[0, 0, 1, 2], :4])
        found = reader.read(Window(0, 0, 64, 64), Size(16, 16))[0]
        expected = array.astype(float).reshape(16, 4, 16, 4).mean((1, 3))
        assert np.abs(found - expected).max() <= 0.5
        assert found.dtype == reader.dtype


def test_checkerboard_becomes_grey():
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    with ArrayReader(board) as reader:
        for side in (256, 128, 100):
            assert np.abs(reader.read(Window(0, 0, 512, 512), Size.square(side)).astype(int) - 128).max() <= 10


def test_levels_do_not_get_brighter():
    noise = np.random.default_rng(0).integers(0, 256, (1, 2048, 2048), dtype=np.uint8)
    with ArrayReader(noise) as reader:
        assert reader._read_level(3, Window(0, 0, 256, 256)).mean() == pytest.approx(noise.mean(), abs=0.05)


def test_a_large_overview_reads_in_strips(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", smooth_image(1, 512, 640, np.uint8), driver="GTiff")
    with open_image(path) as reader:
        monkeypatch.setattr(reader, "strip_bytes", 1 << 16)
        sizes = []
        original = reader._read_level
        monkeypatch.setattr(reader, "_read_level", lambda lv, w: sizes.append(w.size.pixels) or original(lv, w))
        reader.read(Window(0, 0, 512, 640), Size(32, 40))
    assert len(sizes) > 10
    assert max(sizes) * 4 <= 2 << 16


def test_georeference_of_a_coarser_grid():
    place = Georeference("", (2.0, 0.0, 100.0, 0.0, -2.0, 500.0))
    assert place.coarser(8).transform == (16.0, 0.0, 100.0, 0.0, -16.0, 500.0)


def test_real_geotiff(real_data):
    path = real_data / "geo" / "mosaic_cog1.tif"
    if not path.exists():
        pytest.skip("the folder has no geo/mosaic_cog1.tif")
    with open_image(path) as reader:
        np.testing.assert_array_equal(reader.read(Window.of(reader.size)), read_with_rasterio(path))
        assert reader.georeference is not None
        assert len(reader.levels) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float64])
def test_halving_rounds_half_to_even(dtype):
    kind = np.dtype(dtype)
    rng = np.random.default_rng(0)
    low, high = (
        (max(-(2**40), np.iinfo(kind).min), min(2**40, np.iinfo(kind).max)) if kind.kind in "iu" else (-1000, 1000)
    )
    pixels = rng.integers(low, high, (2, 31, 45), endpoint=True).astype(kind)
    padded = np.pad(pixels, ((0, 0), (0, 1), (0, 1)), mode="edge").astype(np.float64)
    means = padded.reshape(2, 16, 2, 23, 2).mean((2, 4))
    expected = np.rint(means) if kind.kind in "iu" else means
    np.testing.assert_allclose(halved(pixels), expected, rtol=1e-5, atol=1e-5)
    assert halved(pixels).dtype == kind


def test_further_images_of_a_slide_are_no_levels(real_data):
    """GDAL lists the label and the photograph of the glass as overviews."""
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("no slide in FOVEATE_DATA")
    with open_image(path) as slide:
        assert slide.levels == (Size(2967, 2220),)


@pytest.mark.parametrize(
    ("shapes", "kept"),
    [
        ([(100, 200), (50, 100), (25, 50)], 3),
        ([(101, 203), (51, 102), (26, 51), (13, 26), (7, 13)], 5),
        ([(101, 203), (50, 101), (25, 50)], 3),
        ([(2967, 2220), (463, 387), (431, 1280)], 1),
        ([(100, 200), (50, 100), (100, 200)], 2),
    ],
)
def test_levels_show_the_whole_image(shapes, kept):
    class Level:
        def __init__(self, height, width):
            self.shape, self.height, self.width, self.closed = (height, width), height, width, False

        def close(self):
            self.closed = True

    levels = [Level(*shape) for shape in shapes]
    assert _pyramid(list(levels)) == [level for level in levels if not level.closed] == levels[:kept]


def test_an_image_without_a_place_is_opened_while_other_threads_swap_the_filters_of_warnings(tmp_path):
    path = write(tmp_path / "image.tif", smooth_image(1, 64, 64, np.uint8), **TILED)
    done = threading.Event()

    def swap():
        while not done.is_set():
            with warnings.catch_warnings():
                time.sleep(0.001)

    with open_image(path), ThreadPoolExecutor(6) as pool:
        others = [pool.submit(swap) for _ in range(3)]
        opened = [pool.submit(lambda: open_image(path).close()) for _ in range(200)]
        try:
            for one in opened:
                one.result()
        finally:
            done.set()
        assert not any(one.exception() for one in others)
