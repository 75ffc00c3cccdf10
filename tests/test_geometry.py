import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import GeometryError
from foveate.geometry import CellGrid, Size, Window, ceil_to, tile_starts

small = st.integers(1, 60)


@given(small, small, st.integers(1, 17))
def test_every_pixel_belongs_to_exactly_one_cell(height, width, cell):
    grid = CellGrid(Size(height, width), cell)
    count = np.zeros((height, width), int)
    for row in range(grid.rows):
        for col in range(grid.cols):
            inside = grid.window(row, col).intersection(Window.of(grid.image))
            count[inside.within(Window.of(grid.image))] += 1
    assert (count == 1).all()


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_tiles_cover_a_length_and_none_is_superfluous(length, side, data):
    stride = data.draw(st.integers(1, side))
    starts = list(tile_starts(length, side, stride))
    covered = {p for start in starts for p in range(start, start + side)}
    assert covered >= set(range(length))
    assert len(starts) == 1 or starts[-2] + side < length


@given(st.integers(-50, 50), st.integers(-50, 50), small, small, st.integers(1, 9))
def test_aligned_window_is_the_smallest_around(top, left, height, width, step):
    window = Window(top, left, height, width)
    outer = window.aligned(step)
    assert outer.contains(window)
    assert outer.top % step == outer.left % step == outer.bottom % step == outer.right % step == 0
    assert window.top - outer.top < step
    assert outer.bottom - window.bottom < step
    assert ceil_to(window.bottom, step) == outer.bottom


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 30), st.integers(0, 20))
def test_centred_window_has_the_same_centre(top, left, side, more):
    wide = Window(top, left, side, side).centred(side + 2 * more)
    assert (wide.top, wide.left) == (top - more, left - more)
    assert wide.centred(side) == Window(top, left, side, side)


def test_a_window_without_pixels_is_refused():
    with pytest.raises(GeometryError, match="at least 1 x 1"):
        Window(0, 0, 0, 4)
    with pytest.raises(GeometryError, match="at least 1 x 1"):
        Size(4, 0)
    with pytest.raises(GeometryError, match="stride"):
        tile_starts(10, 4, 5)


def test_windows_that_only_touch_do_not_meet():
    assert Window(0, 0, 4, 4).intersection(Window(4, 0, 4, 4)) is None
