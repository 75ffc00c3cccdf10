import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.place import placement_of
from foveate.data.readers import ArrayReader, pyramid
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from toys import labels_of

MASK = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (37, 53))


def slow_read(mask, window, size, ignore=255):
    result = np.full((size.height, size.width), ignore, np.uint8)
    for i in range(size.height):
        for j in range(size.width):
            row = window.top + int(np.floor((i + 0.5) * window.height / size.height))
            col = window.left + int(np.floor((j + 0.5) * window.width / size.width))
            if 0 <= row < mask.shape[0] and 0 <= col < mask.shape[1]:
                result[i, j] = mask[row, col]
    return result


sides, starts = st.integers(1, 60), st.integers(-70, 70)


@given(starts, starts, sides, sides, st.none() | st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_nearest_at_centres(top, left, height, width, shape):
    window, size = Window(top, left, height, width), Size(*shape) if shape else None
    found = labels_of(ArrayReader(MASK), 3).read(window, size)
    np.testing.assert_array_equal(found, slow_read(MASK, window, size or window.size))


def test_strips_change_nothing(monkeypatch):
    reader = labels_of(ArrayReader(MASK), 3)
    whole = reader.read(Window(-3, -3, 50, 60), Size(20, 20))
    monkeypatch.setattr(pyramid, "STRIP_BYTES", 100)
    np.testing.assert_array_equal(reader.read(Window(-3, -3, 50, 60), Size(20, 20)), whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_label_map(dtype):
    mask = np.array([[0, 10, 30, 255]], dtype)
    reader = labels_of(ArrayReader(mask), 2, {0: 0, 10: 1, 30: 255})
    assert reader.read(Window(0, 0, 1, 4)).tolist() == [[0, 1, 255, 255]]
    assert labels_of(ArrayReader(mask), 2, {0: 0, 10: 1, 30: 0, 255: 255}).read(Window(0, 0, 1, 5)).tolist() == [
        [0, 1, 0, 255, 255]
    ]


@pytest.mark.parametrize(
    ("value", "dtype"), [(3, np.uint8), (254, np.uint8), (-1, np.int16), (70000, np.int32), (70000, np.uint32)]
)
@pytest.mark.parametrize("size", [None, Size(2, 2)])
def test_value_out_of_range(value, dtype, size):
    mask = np.full((4, 4), value, dtype)
    with pytest.raises(DatasetError, match=rf"m\.png holds the value {value}; allowed are 0, 1, 2, 255.*label_map"):
        labels_of(ArrayReader(mask, "m.png"), 3).read(Window(0, 0, 4, 4), size)


def test_value_not_in_the_map():
    with pytest.raises(DatasetError, match=r"holds the value [0]; allowed are 1, 2, 7, 255"):
        labels_of(ArrayReader(MASK), 3, label_map={7: 0}).read(Window(0, 0, 9, 9))
    everything = {7: 0, 8: 1, 9: 2}
    with pytest.raises(DatasetError, match=r"holds the value [012]; allowed are 7, 8, 9, 255"):
        labels_of(ArrayReader(MASK), 3, label_map=everything).read(Window(0, 0, 9, 9))


@pytest.mark.parametrize("mask", [np.arange(48, dtype=np.uint8).reshape(3, 4, 4), np.full((4, 4), 0.5, np.float32)])
def test_no_mask(mask):
    with pytest.raises(DatasetError, match=r"a mask (is|has) one band of class ids"):
        labels_of(ArrayReader(mask), 3).read(Window(0, 0, 4, 4))


def test_pair_of_different_sizes():
    image, mask = ArrayReader(np.zeros((3, 40, 53)), "a.tif"), ArrayReader(MASK, "m.png")
    with pytest.raises(DatasetError, match=r"a\.tif is 40 x 53 pixels and its mask m\.png is 37 x 53"):
        placement_of(image, mask)
    placement_of(ArrayReader(MASK), mask)
