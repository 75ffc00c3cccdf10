import numpy as np
import pytest
from data_toys import TRANSFORM, footprint_means, smooth_image, write

from foveate.data.readers import ArrayReader, Georeference, Resolution, open_image
from foveate.data.readers.derived import RescaledReader, resized, size_at
from foveate.errors import UnsupportedImageError
from foveate.geometry import Size, Window


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


def test_another_reader_is_refused():
    class Other:
        location, size = "other", Size(4, 4)

    with pytest.raises(UnsupportedImageError, match="derive the reader from PyramidReader"):
        resized(Other(), Size(2, 2))


def test_georeferenced_file(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(1, 100, 120, np.uint8), driver="GTiff", georeferenced=True)
    with open_image(path) as reader:
        size = size_at(reader, reader.resolution, 5.0)
        assert size == Size(50, 60)
        assert resized(reader, reader.size) is reader
        found = resized(reader, size).georeference
        assert found.transform == pytest.approx((5.0, 0.0, TRANSFORM.c, 0.0, -5.0, TRANSFORM.f))
