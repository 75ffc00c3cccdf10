"""Outlines with right angles: what is drawn in pixels gets the corners of what it was drawn from."""

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.features import shapes as outlines_of
from shapely.affinity import rotate

from foveate.writers.regions import regularised


def drawn(shape):
    """The polygon of the pixels whose centres lie in a shape."""
    mask = rasterize([(shape, 1)], (200, 200), dtype="uint8")
    return max((shapely.geometry.shape(tree) for tree, value in outlines_of(mask) if value), key=lambda one: one.area)


def angles(polygon):
    points = np.asarray(polygon.exterior.coords)[:-1]
    sides = np.roll(points, -1, axis=0) - points
    turns = np.arctan2(sides[:, 1], sides[:, 0])
    return np.degrees(np.diff(turns, append=turns[0])) % 180


L_SHAPE = shapely.Polygon([(40, 40), (150, 40), (150, 90), (100, 90), (100, 150), (40, 150)])


@pytest.mark.parametrize("turn", [0, 12, 30, 44, 71])
@pytest.mark.parametrize(("shape", "corners"), [(shapely.box(50, 60, 150, 120), 4), (L_SHAPE, 6)])
def test_buildings_get_their_corners_back(shape, corners, turn):
    house = rotate(shape, turn)
    pixels = drawn(house)
    regular = regularised(pixels)
    assert len(regular.exterior.coords) - 1 == corners
    assert np.allclose(np.minimum(angles(regular) % 90, 90 - angles(regular) % 90), 0, atol=0.5)
    assert regular.symmetric_difference(house).area < 0.05 * house.area
    assert len(pixels.exterior.coords) - 1 > corners or turn == 0


def test_holes_are_made_regular_too():
    house = rotate(shapely.box(30, 30, 160, 150).difference(shapely.box(70, 70, 110, 110)), 20)
    regular = regularised(drawn(house))
    assert [len(ring.coords) - 1 for ring in (regular.exterior, *regular.interiors)] == [4, 4]
    assert regular.is_valid


def test_what_is_round_stays_round():
    pond = shapely.Point(100, 100).buffer(60)
    regular = regularised(drawn(pond))
    assert regular.is_valid
    assert regular.symmetric_difference(pond).area < 0.06 * pond.area
    assert len(regular.exterior.coords) > 8


def test_slivers_and_specks_come_back_valid():
    for shape in (shapely.box(10, 10, 11, 11), shapely.box(10, 10, 60, 11), rotate(shapely.box(10, 10, 90, 12), 45)):
        regular = regularised(drawn(shape))
        assert regular.is_valid
        assert regular.area > 0
