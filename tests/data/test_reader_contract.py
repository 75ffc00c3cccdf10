"""The written contract, run on every reader and kind of file."""

import numpy as np
import pytest
from data_toys import TRANSFORM, footprint_means
from reader_kinds import HEIGHT, KINDS, WIDTH

from foveate.data.readers import ImageReader
from foveate.geometry import Size, Window
from oracles import mirrored

CASES = [
    pytest.param((name, bands, dtype), id=f"{name}-{bands}-{dtype}")
    for name, kind in KINDS.items()
    for bands in kind.bands
    for dtype in kind.dtypes
]


@pytest.fixture(scope="module")
def opened(request, tmp_path_factory):
    name, bands, dtype = request.param
    with KINDS[name].opened(tmp_path_factory.mktemp("contract"), bands, dtype) as opened:
        yield opened


every_kind = pytest.mark.parametrize("opened", CASES, indirect=True)
some_kinds = pytest.mark.parametrize("opened", [c for c in CASES if "3-uint8" in c.id], indirect=True)


@every_kind
def test_describes_the_image(opened):
    reader = opened.reader
    assert isinstance(reader, ImageReader)
    assert reader.size == Size(HEIGHT, WIDTH)
    assert reader.bands == opened.pixels.shape[0]
    assert reader.dtype == opened.pixels.dtype
    assert reader.levels[0] == reader.size
    assert all(a.pixels > b.pixels for a, b in zip(reader.levels, reader.levels[1:], strict=False))


@every_kind
def test_level_0_is_exact(opened):
    whole = opened.reader.read(Window.of(opened.reader.size))
    assert whole.dtype == opened.pixels.dtype
    np.testing.assert_array_equal(whole, opened.pixels)
    np.testing.assert_array_equal(opened.reader.read(Window(37, 101, 5, 3)), opened.pixels[:, 37:42, 101:104])


@every_kind
@pytest.mark.parametrize(
    "window",
    [Window(-7, -3, 20, 30), Window(290, 400, 31, 33), Window(-310, -500, 700, 1100), Window(1000, -2000, 40, 50)],
    ids=["upper left", "lower right", "larger than the image", "far outside"],
)
def test_mirrors_outside(opened, window):
    expected = mirrored(opened.pixels, window.top, window.left, window.height, window.width)
    np.testing.assert_array_equal(opened.reader.read(window), expected)


@every_kind
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_means_are_areas(opened, factor):
    window = Window(8, 16, 24 * factor, 32 * factor)
    expected = footprint_means(mirrored(opened.pixels, 8, 16, window.height, window.width), 24, 32)
    found = opened.reader.read(window, Size(24, 32))
    assert found.dtype == opened.pixels.dtype
    assert np.abs(found - expected).max() <= opened.tolerance()


@some_kinds
@pytest.mark.parametrize(
    ("window", "size"),
    [
        (Window(-13, 351, 99, 101), Size(30, 41)),
        (Window(0, 0, HEIGHT, WIDTH), Size(19, 26)),
        (Window(-50, -60, 400, 600), Size(7, 11)),
        (Window(3, 5, 50, 20), Size(10, 20)),
    ],
)
def test_any_window_at_any_size(opened, window, size):
    expected = footprint_means(
        mirrored(opened.pixels, window.top, window.left, window.height, window.width), size.height, size.width
    )
    error = np.abs(opened.reader.read(window, size) - expected)
    inside = np.ix_(
        _inside(window.top, window.height, size.height, HEIGHT), _inside(window.left, window.width, size.width, WIDTH)
    )
    assert error[:, inside[0], inside[1]].max() <= opened.tolerance()
    # What is mirrored at an odd last row of a level lies up to two of its pixels off.
    assert error.max() <= opened.tolerance() + 8


def _inside(start, length, count, image):
    """Outputs whose footprint does not leave the image."""
    edges = start + np.arange(count + 1) * length / count
    return np.flatnonzero((edges[:-1] >= 0) & (edges[1:] <= image))


@some_kinds
def test_order_of_reads_changes_nothing(opened):
    requests = [
        (Window(-5, 3, 100, 100), Size(25, 25)),
        (Window(0, 0, 64, 64), None),
        (Window(9, 9, 90, 90), Size(9, 9)),
    ]
    first = [opened.reader.read(*request) for request in requests]
    again = [opened.reader.read(*request) for request in reversed(requests)]
    for a, b in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(a, b)


@some_kinds
def test_result_belongs_to_the_caller(opened):
    for window, size in [(Window(0, 0, 8, 8), None), (Window(-8, 0, 8, 8), None), (Window(0, 0, 16, 16), Size(8, 8))]:
        before = opened.reader.read(window, size)
        opened.reader.read(window, size)[:] = 0
        np.testing.assert_array_equal(opened.reader.read(window, size), before)


@some_kinds
def test_strips_change_nothing(opened, monkeypatch):
    requests = [(Window(0, 0, HEIGHT, WIDTH), Size(19, 26)), (Window(-90, -95, 500, 612), Size(33, 20))]
    whole = [opened.reader.read(*request) for request in requests]
    monkeypatch.setattr(opened.reader, "strip_bytes", 4096)
    for request, expected in zip(requests, whole, strict=True):
        np.testing.assert_array_equal(opened.reader.read(*request), expected)


@some_kinds
def test_georeference_is_kept(opened):
    place = opened.reader.georeference
    if opened.kind.georeferenced:
        assert place is not None
        assert "UTM zone 18N" in place.crs
        assert place.transform == pytest.approx(tuple(TRANSFORM)[:6])
    else:
        assert place is None


@some_kinds
def test_closing_twice_is_allowed(opened):
    reader = opened.again()
    reader.read(Window(0, 0, 4, 4))
    reader.close()
    reader.close()


@some_kinds
def test_says_what_it_is_called(opened):
    reader = opened.reader
    assert reader.location
    assert reader.path.stem
    assert reader.handles >= 0
    assert reader.resolution is None or min(reader.resolution.row, reader.resolution.col) > 0
