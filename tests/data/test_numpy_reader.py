import numpy as np
import pytest

from foveate.data.readers import open_image
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window


@pytest.mark.parametrize(
    ("shape", "bands", "size"),
    [
        ((40, 50), 1, (40, 50)),
        ((3, 40, 50), 3, (40, 50)),
        ((40, 50, 3), 3, (40, 50)),
        ((1, 1, 7, 40, 50), 7, (40, 50)),
        ((40, 30, 200), 30, None),
        ((30, 40, 200), 30, (40, 200)),
    ],
)
def test_shapes(tmp_path, shape, bands, size):
    values = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    if size is None:
        with pytest.raises(UnsupportedImageError, match=r"shape \[40, 30, 200\]"):
            open_image(tmp_path / "a.npy")
        return
    with open_image(tmp_path / "a.npy") as reader:
        assert (reader.bands, reader.size) == (bands, Size(*size))
        assert reader.resident_bytes == 0


@pytest.mark.parametrize("shape", [(5,), (20, 20, 20), (3, 30, 3), (2, 3, 40, 50), (0, 40)])
def test_what_is_no_image(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(UnsupportedImageError, match=r"a\.npy"):
        open_image(tmp_path / "a.npy")


def test_no_python_object_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedImageError):
        open_image(tmp_path / "a.npy")


def test_types_are_the_machines(tmp_path):
    values = np.arange(64 * 64).reshape(64, 64)
    for dtype, found in ((">u2", "uint16"), ("?", "uint8"), (">f4", "float32")):
        np.save(tmp_path / "a.npy", values.astype(dtype))
        with open_image(tmp_path / "a.npy") as reader:
            pixels = reader.read(Window(2, 3, 4, 5))
            assert pixels.dtype == reader.dtype == np.dtype(found)
            np.testing.assert_array_equal(pixels[0], values.astype(dtype)[2:6, 3:8])


def test_truncated(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((300, 300)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageReadError, match=r"a\.npy"):
        open_image(path)
