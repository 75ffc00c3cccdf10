"""Where images lie and how large their pixels are in truth."""

import math

import numpy as np
import pytest
import rasterio
from data_toys import smooth_image, write
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from foveate.data.pyramids import convert
from foveate.data.readers import open_image
from foveate.data.readers.gdal import area_lattice, open_dataset, pixel_sides
from foveate.geometry import Size

UTM = "EPSG:32632"
TURNED = Affine.translation(500000, 5400000) @ Affine.rotation(30) @ Affine.scale(2, -0.5)


def placed(path, crs, transform, size=(100, 120)):
    return write(path, smooth_image(1, *size, np.uint8), driver="GTiff", crs=crs, transform=transform)


def by_points(path, transform, bend=0.0, corners=((0, 0), (0, 120), (100, 0), (100, 120), (50, 60))):
    points = [GroundControlPoint(row, col, *(transform @ (col + bend * (row == 50), row))) for row, col in corners]
    return write(path, smooth_image(1, 100, 120, np.uint8), driver="GTiff", gcps=points, crs=UTM)


@pytest.mark.parametrize("transform", [Affine(1, 0, 500000, 0, -1, 5400000), Affine(1, 0, 500000, 0, 1, 54e5), TURNED])
def test_control_points_make_a_place(tmp_path, transform):
    with open_image(by_points(tmp_path / "i.tif", transform)) as image:
        assert image.georeference.transform == pytest.approx(tuple(transform)[:6])
        assert "UTM zone 32N" in image.georeference.crs
        assert image.remarks == ("its georeference is fitted to 5 ground control points, at most 0.00 pixels off",)


def test_a_fit_that_is_nearly_right_says_how_far(tmp_path):
    with open_image(by_points(tmp_path / "i.tif", TURNED, bend=0.5)) as image:
        assert image.georeference is not None
        assert image.remarks == ("its georeference is fitted to 5 ground control points, at most 0.40 pixels off",)


def test_points_that_no_plane_fits_are_not_used_and_that_is_said(tmp_path):
    with open_image(by_points(tmp_path / "i.tif", TURNED, bend=10)) as image:
        assert image.georeference is None
        assert "up to 8.0 pixels off" in image.remarks[0]
        assert "gdalwarp" in image.remarks[0]
    with open_image(by_points(tmp_path / "j.tif", TURNED, corners=((0, 0), (10, 10), (20, 20)))) as image:
        assert image.georeference is None
        assert "on one line" in image.remarks[0]


def test_polynomials_are_named(tmp_path):
    path = write(tmp_path / "i.tif", smooth_image(1, 100, 120, np.uint8), driver="GTiff")
    ones = [1.0] + [0.0] * 19
    with open_dataset(path, "r+") as file:
        file.rpcs = RPC(0, 1, 50, 1, ones, ones, 50, 50, 10, 1, ones, ones, 60, 60)
    with open_image(path) as image:
        assert image.georeference is None
        assert "RPCs" in image.remarks[0]


def test_conversion_keeps_a_fitted_place(tmp_path):
    convert(by_points(tmp_path / "i.tif", TURNED), tmp_path / "o.tif")
    with open_image(tmp_path / "o.tif") as image:
        assert image.georeference.transform == pytest.approx(tuple(TURNED)[:6])


def test_a_degree_is_as_long_as_it_is_there(tmp_path):
    path = placed(tmp_path / "i.tif", "EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 60))
    with open_image(path) as image:
        # A degree of latitude 60 is 111412 m, one of longitude there 55800 m.
        assert image.resolution.row == pytest.approx(1.11412, rel=1e-4)
        assert image.resolution.col == pytest.approx(0.55800, rel=1e-4)


def test_web_mercator_is_not_what_it_says(tmp_path):
    x, y = 1113194.9, 8399737.9  # 10 degrees east, 60 north
    with open_image(placed(tmp_path / "i.tif", "EPSG:3857", Affine(1, 0, x, 0, -1, y))) as image:
        assert image.resolution.row == pytest.approx(0.5, rel=5e-3)
        assert image.resolution.col == pytest.approx(0.5, rel=5e-3)


@pytest.mark.parametrize(("transform", "sides"), [(Affine(2, 0, 5e5, 0, -3, 54e5), (3, 2)), (TURNED, (0.5, 2))])
def test_what_is_made_to_measure_is_taken_as_it_is(tmp_path, transform, sides):
    with open_image(placed(tmp_path / "i.tif", UTM, transform)) as image:
        assert (image.resolution.row, image.resolution.col) == pytest.approx(sides, rel=1e-12)


def test_the_whole_earth_has_no_one_size(tmp_path):
    path = placed(tmp_path / "i.tif", "EPSG:4326", Affine(1, 0, -180, 0, -1, 90), (180, 360))
    with open_image(path) as image:
        assert image.resolution is None


def test_areas_add_up_to_the_earths():
    transform = (1.0, 0.0, -180.0, 0.0, -1.0, 90.0)
    rows, cols = np.mgrid[0.5:180, 0.5:360]
    areas = pixel_sides(rasterio.CRS.from_epsg(4326), transform, rows.ravel(), cols.ravel())[2]
    assert areas.sum() == pytest.approx(510.0656e12, rel=1e-4)


def test_areas_at_the_date_line_and_of_projections():
    across = pixel_sides(
        rasterio.CRS.from_epsg(4326), (0.1, 0, 179.95, 0, -0.1, 0.05), np.array([0.5]), np.array([0.5])
    )
    assert across[:, 0] == pytest.approx([11057.4, 11131.9, 11057.4 * 11131.9], rel=1e-4)
    mercator = area_lattice(rasterio.CRS.from_epsg(3857), (1, 0, 1113194.9, 0, -1, 8399737.9), Size(100, 100))
    assert mercator[0, 0] == pytest.approx(math.cos(math.radians(60)) ** 2, rel=1e-2)
    assert area_lattice(rasterio.CRS.from_epsg(32632), (2, 0, 5e5, 0, -2, 54e5), Size(100, 100)) == [[4]]
