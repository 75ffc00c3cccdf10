import numpy as np
import pytest
from data_toys import smooth_image, write
from rasterio import Affine

from foveate.data.readers import ArrayReader, Georeference, Resolution, open_image
from foveate.data.readers.gdal import open_dataset

PIXELS = smooth_image(1, 40, 50, np.uint8)


def resolution(path):
    with open_image(path) as reader:
        return reader.resolution


@pytest.mark.parametrize(
    ("unit", "per_unit", "metres"),
    [
        ("3", (20000, 40000), (0.25e-6, 0.5e-6)),
        ("2", (25400, 25400), (1e-6, 1e-6)),
        ("2", (72, 72), None),
        ("2", (300, 300), None),
        ("3", (28.35, 28.35), None),
        ("1", (20000, 20000), None),
    ],
)
def test_tags_of_a_tiff(tmp_path, unit, per_unit, metres):
    path = write(tmp_path / "a.tif", PIXELS, driver="GTiff")
    with open_dataset(path, "r+") as file:
        file.update_tags(TIFFTAG_RESOLUTIONUNIT=unit, TIFFTAG_XRESOLUTION=per_unit[0], TIFFTAG_YRESOLUTION=per_unit[1])
    found = resolution(path)
    assert (found is None) == (metres is None)
    if metres:
        assert (found.row, found.col) == pytest.approx(metres, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Aperio Image|AppMag = 40|MPP = 0.2520|Left = 3", Resolution(0.252e-6, 0.252e-6)),
        ('<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"/></OME>',
         Resolution(250e-9, 0.5e-6)),
        ('<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></OME>', Resolution(0.5e-6, 0.5e-6)),
        ('<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.5"/></OME>', None),
        ("MPP = none|MPP = 0", None),
        ("a holiday", None),
    ],
)  # fmt: skip
def test_descriptions(tmp_path, monkeypatch, text, expected):
    path = write(tmp_path / "a.tif", PIXELS, driver="GTiff")
    with open_dataset(path, "r+") as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text)
    found = resolution(path)
    assert (found is None) == (expected is None)
    if expected:
        assert (found.row, found.col) == pytest.approx((expected.row, expected.col))


@pytest.mark.parametrize(
    ("crs", "metres"), [("EPSG:32618", (2.0, 1.0)), ("EPSG:2263", (0.6096, 0.3048)), ("EPSG:4326", None)]
)
def test_projected_coordinates(tmp_path, crs, metres):
    path = write(tmp_path / "a.tif", PIXELS, driver="GTiff", crs=crs, transform=Affine(0, 2, 30, 1, 0, 40))
    found = resolution(path)
    assert (found is None) == (metres is None)
    if metres:
        assert (found.row, found.col) == pytest.approx(metres, rel=1e-4)


def test_of_an_array():
    assert ArrayReader(PIXELS, resolution=Resolution(1.0, 2.0)).resolution == Resolution(1.0, 2.0)
    assert ArrayReader(PIXELS).resolution is None
    assert Resolution.known(0.0, 1.0) is Resolution.known(1.0, float("nan")) is None


def test_scaling():
    place = Georeference("", (2.0, 0.5, 100.0, 0.25, -3.0, 500.0))
    assert place.scaled(4, 2).transform == (4.0, 2.0, 100.0, 0.5, -12.0, 500.0)
    assert Resolution(1.0, 2.0).scaled(4, 2) == Resolution(4.0, 4.0)
