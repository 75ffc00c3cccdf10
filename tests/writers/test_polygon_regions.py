"""Regions and rings against GDAL's polygons of the whole raster."""

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize, shapes

from foveate.tiff.raster import NODATA
from foveate.writers.regions import regions

IMAGES = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 1, 2, NODATA]),
    fill=st.nothing(),
)
# Long walls make nested holes and regions of many strips, which single pixels rarely do.
WALLS = st.builds(
    lambda seed, height, width: walls(np.random.default_rng(seed), height, width),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 40),
)


def walls(rng, height, width):
    image = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 14)):
        r, c, h, w = rng.integers(0, [height, width, height + 1, width + 1])
        image[r : r + h, c : c + w] = rng.choice([0, 1, 2, NODATA])
    return image


def polygons(image, rows):
    strips = (image[top : top + rows] for top in range(0, len(image), rows))
    return list(regions(strips))


def whole(image):
    """GDAL's polygons; it keeps what touches itself as one ring, which cleaning splits."""
    found = shapes(image, mask=image != NODATA, connectivity=4)
    return [(int(value), shapely.make_valid(shapely.geometry.shape(shape))) for shape, value in found]


def check(image, rows):
    mine = polygons(image, rows)
    expected = whole(image)
    assert len(mine) == len(expected)
    for polygon in mine:
        assert isinstance(polygon.shape, shapely.Polygon)
        assert polygon.shape.is_valid, shapely.is_valid_reason(polygon.shape)
        assert shapely.is_ccw(polygon.shape.exterior)
    drawn = np.full(image.shape, NODATA, np.uint8)
    for polygon in mine:
        rasterize([(polygon.shape, polygon.value)], out=drawn)
    assert np.array_equal(drawn, image)
    assert sorted((p.value, p.shape.area) for p in mine) == sorted((v, g.area) for v, g in expected)


@settings(max_examples=150)
@given(IMAGES, st.integers(1, 13))
def test_random_pixels(image, rows):
    check(image, rows)


@settings(max_examples=100)
@given(WALLS, st.integers(1, 41))
def test_random_walls(image, rows):
    check(image, rows)


@given(WALLS, st.integers(1, 41))
def test_strips_of_any_height_give_the_same_polygons(image, rows):
    def forms(height):
        return sorted(shapely.normalize(p.shape).wkt for p in polygons(image, height))

    assert forms(rows) == forms(len(image))


def test_a_region_is_handed_on_as_soon_as_it_is_complete():
    """Else memory would grow with the image: at most one strip more is read than the region reaches."""
    image, read = np.zeros((64, 30), np.uint8), []
    image[:, 10] = 1  # from top to bottom
    image[::4, 20] = 2

    def strips():
        for top in range(0, 64, 8):
            read.append(top + 8)
            yield image[top : top + 8]

    for region in regions(strips()):
        assert read[-1] <= region.shape.bounds[3] + 8


def test_a_region_knows_its_holes_wherever_they_begin():
    """A comb whose teeth meet at the bottom only, with a hole in each tooth, one of which touches the outside."""
    image = np.zeros((20, 23), np.uint8)
    image[2:, 1::4] = image[2:, 2::4] = image[2:, 3::4] = 1
    image[18:] = 1
    image[6:9, 2::4] = 0
    image[5, 2] = image[4, 2] = 0
    image[9, 3], image[8, 3], image[10, 4] = 0, 1, 1
    for rows in (1, 2, 3, 7, 20):
        check(image, rows)
