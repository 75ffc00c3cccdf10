"""Which pixels are looked at: regions from GeoJSON, pixels that hold data, and tissue."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from data_toys import write
from PIL import Image
from rasterio.warp import transform as warp

from foveate.data.area import (
    LEFT_OUT,
    Area,
    Polygons,
    Roi,
    TissueMask,
    area_of,
    is_slide,
    load_region,
    otsu,
    saturation_of,
)  # fmt: skip
from foveate.data.readers import ArrayReader, Georeference, Resolution, open_image
from foveate.data.readers.derived import RescaledReader
from foveate.errors import ConfigError
from foveate.geometry import Size, Window

SIZE = Size(700, 900)
STAR = [(400 + 300 * (1 + k % 2) / 2 * math.cos(k), 350 + 300 * (1 + k % 2) / 2 * math.sin(k)) for k in range(6)]
HOLE = [(380.3, 330.2), (440.7, 340.1), (410.2, 390.9)]
TURNED = (2.0, 0.5, 4e5, 0.4, -2.0, 5e6)


def closed(points):
    return [list(p) for p in [*points, points[0]]]


def outline(*rings):
    return tuple(np.array(closed(ring), float) for ring in rings)


def even_odd(ring, rows, cols):
    """Whether points are inside a ring, by counting the edges to their right."""
    inside = np.zeros(rows.shape, bool)
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        crosses = (y0 > rows) != (y1 > rows)
        inside ^= crosses & (cols < (x1 - x0) * (rows - y0) / np.where(y1 == y0, 1, y1 - y0) + x0)
    return inside


def save(path, geometry, **members):
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **members}))
    return path


def image(size=SIZE, place=None):
    return ArrayReader(np.zeros((3, size.height, size.width), np.uint8), georeference=place)


def test_a_region_holds_the_pixels_whose_centres_it_holds():
    rows, cols = np.mgrid[: SIZE.height, : SIZE.width] + 0.5
    expected = even_odd(STAR, rows, cols) ^ even_odd(HOLE, rows, cols)
    region = Polygons([outline(STAR, HOLE), outline([(0, 0), (50, 0), (50, 20.6), (0, 20.6)])])
    expected[:21, :50] = True
    whole = region.inside(Window.of(SIZE))
    assert np.array_equal(whole, expected)
    for window in (Window(3, 5, 600, 700), Window(340, 350, 40, 90), Window(690, 890, 10, 10)):
        assert np.array_equal(region.inside(window), whole[window.within(Window.of(SIZE))])


def test_a_centre_on_an_edge_is_in_one_of_the_polygons_that_share_it_and_in_a_hole_or_around_it():
    """With corners on centres of pixels, as programs draw them."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        corners = rng.integers(2, 38, (7, 2)) / 2
        angles = np.arctan2(*(corners - corners.mean(axis=0)).T)
        ring = corners[angles.argsort()]
        around = [(0, 0), (20, 0), (20, 20), (0, 20)]
        one, rest = (Polygons([outline(*rings)]).inside(Window(0, 0, 20, 20)) for rings in ([ring], [around, ring]))
        assert (one ^ rest).all()
    square = Polygons([outline([(2.5, 2.5), (5.5, 2.5), (5.5, 5.5), (2.5, 5.5)])])
    rows, cols = np.nonzero(square.inside(Window(0, 0, 9, 9)))
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (2, 4, 3, 5)


@pytest.mark.parametrize("kind", ["pixels", "crs", "named", "lonlat"])
def test_coordinates_lead_to_the_same_pixels(tmp_path, kind):
    crs = rasterio.CRS.from_epsg(32633)
    place = Georeference(crs.to_wkt(), TURNED)
    xy = [Affine(*TURNED) @ (col, row) for col, row in closed(STAR)]
    if kind in ("lonlat", "named"):
        target = "OGC:CRS84" if kind == "lonlat" else "EPSG:3857"
        xy = list(zip(*warp(crs, target, *zip(*xy, strict=True)), strict=True))
    ring = closed(STAR) if kind == "pixels" else [list(p) for p in xy]
    members = {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}} if kind == "named" else {}
    path = save(tmp_path / "roi.geojson", {"type": "MultiPolygon", "coordinates": [[ring]]}, **members)
    given = "crs" if kind == "crs" else "auto"
    found = load_region(path, image(place=place), given).inside(Window.of(SIZE))
    expected = Polygons([outline(STAR)]).inside(Window.of(SIZE))
    assert (found != expected).sum() <= 2


def test_pixels_are_those_of_the_file_whatever_its_working_resolution(tmp_path):
    path = save(tmp_path / "roi.geojson", {"type": "Polygon", "coordinates": [closed([(0, 0), (450, 0), (450, 700)])]})
    half = RescaledReader(image(), Size(350, 450))
    found = load_region(path, half).inside(Window(0, 0, 350, 450))
    assert np.array_equal(found, Polygons([outline([(0, 0), (225, 0), (225, 350)])]).inside(Window(0, 0, 350, 450)))


def test_a_folder_holds_a_region_for_each_image(tmp_path):
    assert Roi(tmp_path).file("a") == tmp_path / "a.geojson"
    assert Roi(tmp_path / "b.json").file("a") == tmp_path / "b.json"
    with pytest.raises(ConfigError, match=r"no region of interest at .*c\.geojson"):
        area_of(image(), "c", roi=Roi(tmp_path))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "holds Point; a region"),
        ({"type": "FeatureCollection", "features": []}, "has no polygon"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, "a"], [4, 5], [1, 2]]]}, "not numbers"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [1, 2]]]}, "at least four corners"),
        ({"type": "Polygon", "coordinates": [closed([(5000, 0), (5001, 0), (5001, 9)])]}, "do not overlap"),
        (
            {"type": "Polygon", "coordinates": [closed(STAR)], "crs": {"properties": {"name": "x"}}},
            "unknown coordinate reference",
        ),
        ("text", "holds 'text'"),
        ({"type": "Feature", "geometry": None}, "holds a feature without a geometry"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path, tree, message):
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=message):
        load_region(path, image())


def test_rows_that_qgis_counts_downwards_are_mirrored_and_that_is_said(tmp_path):
    """In an image without a place on the ground QGIS draws with negative rows."""
    down = [closed([(x, -y) for x, y in ring]) for ring in (STAR, HOLE)]
    path = save(tmp_path / "roi.geojson", {"type": "Polygon", "coordinates": down})
    region, whole = load_region(path, image()), Window.of(SIZE)
    upright = save(tmp_path / "up.geojson", {"type": "Polygon", "coordinates": [closed(STAR), closed(HOLE)]})
    expected = load_region(upright, image())
    assert region.inside(whole).any()
    assert (region.inside(whole) == expected.inside(whole)).all()
    assert (region.note, expected.note) == (
        "roi.geojson: the rows are negative, as in files from QGIS, and were mirrored",
        "",
    )


@pytest.mark.parametrize(
    ("points", "coordinates", "taken"),
    [
        ([(400, 50), (600, 50), (600, 300)], "auto", "pixels of the image"),
        ([(400, 50), (600, 50), (600, 300)], "pixels", None),
        ([(10, 10), (85, 10), (85, 85)], "auto", "longitude and latitude"),  # the image lies inside, at 55, 25
        ([(10, 10), (85, 10), (85, 85)], "pixels", None),
    ],
)
def test_which_coordinates_a_file_has_is_guessed_only_on_earth_and_said(tmp_path, points, coordinates, taken):
    place = Georeference(rasterio.CRS.from_epsg(4326).to_wkt(), (0.001, 0, 54.5, 0, -0.001, 25.5))
    on_earth = image(place=place)
    path = save(tmp_path / "roi.geojson", {"type": "Polygon", "coordinates": [closed(points)]})
    said = f"roi.geojson names no coordinate system: taken as {taken}; see --roi-coordinates" if taken else ""
    assert load_region(path, on_earth, coordinates).note == said
    assert load_region(path, image()).note == ""


def test_a_region_around_an_image_is_refused(tmp_path):
    """No polygon meets the image, though the rectangle around all of them does."""
    left, right = closed([(-90, 0), (-10, 0), (-10, 50)]), closed([(950, 0), (990, 0), (990, 50)])
    path = save(tmp_path / "roi.geojson", {"type": "MultiPolygon", "coordinates": [[left], [right]]})
    with pytest.raises(ConfigError, match=r"spans columns -90 to 990 and rows 0 to 50.*do not overlap"):
        load_region(path, image())


def test_coordinates_on_earth_need_an_image_that_lies_there(tmp_path):
    path = save(tmp_path / "roi.geojson", {"type": "Polygon", "coordinates": [closed(STAR)]})
    with pytest.raises(ConfigError, match="--roi-coordinates pixels"):
        load_region(path, image(), "lonlat")


def holed(height=120, width=150):
    pixels = np.random.default_rng(0).integers(1, 255, (3, height, width), np.uint8)
    valid = np.ones((height, width), bool)
    valid[20:70, 30:90] = False
    return pixels, valid


def with_mask(path, pixels, valid):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, pixels, driver="GTiff", tiled=True, blockxsize=16, blockysize=16)
        with rasterio.open(path, "r+") as file:
            file.write_mask(valid)


@pytest.mark.parametrize("kind", ["nodata", "nan", "mask", "alpha", "png"])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_says_which_pixels_hold_data(tmp_path, kind):
    pixels, valid = holed()
    path = tmp_path / ("a.png" if kind == "png" else "a.tif")
    if kind == "nodata":
        pixels[:, ~valid] = 0
        pixels[0, 0, 0] = 0  # of one band only
        write(path, pixels, driver="GTiff", nodata=0)
    elif kind == "nan":
        write(path, np.where(valid, pixels, np.nan).astype(np.float32), driver="GTiff", nodata=np.nan)
    elif kind == "mask":
        with_mask(path, pixels, valid)
    elif kind == "alpha":
        alpha = np.where(valid, 255, 0).astype(np.uint8)[None]
        write(path, np.concatenate([pixels, alpha]), driver="GTiff", photometric="RGB", alpha="yes")
    else:
        Image.fromarray(np.dstack([*pixels, np.where(valid, 255, 0).astype(np.uint8)])).save(path)
    with open_image(path) as reader:
        assert reader.masked
        assert np.array_equal(reader.valid(Window.of(reader.size)), valid)
        window = Window(60, 80, 33, 44)
        assert np.array_equal(reader.valid(window), valid[window.within(Window.of(reader.size))])
        area = area_of(reader, "a")
        assert np.array_equal(area.inside(window), reader.valid(window))
        assert area_of(reader, "a", nodata=False).is_everything
        half = RescaledReader(reader, Size(60, 75))
        assert np.array_equal(half.valid(Window(0, 0, 60, 75)), valid[1::2, 1::2])


def test_without_a_mask_all_pixels_hold_data(tmp_path):
    with open_image(write(tmp_path / "a.tif", holed()[0], driver="GTiff")) as reader:
        assert not reader.masked
        assert reader.valid(Window(3, 4, 5, 6)).all()
        assert area_of(reader, "a", tissue="auto").is_everything


@pytest.mark.parametrize("side", [7, 64, 512, 4000])
def test_squares_hold_a_pixel_of_the_area(side):
    area = Area(SIZE, Polygons([outline(STAR, HOLE)]))
    inside = area.inside(Window.of(SIZE))
    met = area.squares(side)
    for row, col in np.ndindex(met.shape):
        assert met[row, col] == inside[row * side : (row + 1) * side, col * side : (col + 1) * side].any()


def within_class_variance(values, threshold):
    parts = values[values <= threshold], values[values > threshold]
    return sum(part.var() * len(part) for part in parts if len(part))


@pytest.mark.parametrize("seed", range(4))
def test_otsu_makes_the_classes_vary_least(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(40, 9, 900), rng.normal(rng.uniform(80, 200), 20, 300)]).clip(0, 255)
    values = values.astype(np.uint8)
    best = min(within_class_variance(values, t) for t in range(256))
    assert within_class_variance(values, otsu(values)) == pytest.approx(best)


def test_saturation():
    colours = np.array([[255, 0, 0], [200, 100, 100], [90, 90, 90], [0, 0, 0]], np.uint8).T[:, None]
    assert saturation_of(colours).tolist() == [[255, 128, 0, 0]]


def slide_pixels(height=1200, width=1600):
    """Noisy glass with a disc of tissue and a speck of dust."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(240, 2, (3, height, width))
    rows, cols = np.mgrid[:height, :width]
    disc = (rows - 600) ** 2 + (cols - 700) ** 2 < 300**2
    pixels[1, disc] -= 60
    pixels[1, 100:110, 1500:1510] -= 90
    return pixels.clip(0, 255).astype(np.uint8), disc


def test_tissue_is_found_with_a_margin_and_dust_is_not():
    pixels, disc = slide_pixels()
    slide = ArrayReader(pixels, resolution=Resolution(2e-6, 2e-6))
    assert is_slide(slide)
    mask = TissueMask.of(slide)
    assert mask.mask.shape == (300, 400)
    found = mask.inside(Window.of(slide.size))
    assert found[disc].all()
    assert found.sum() < 1.2 * disc.sum()
    assert not found[60:150, 1450:1550].any()
    area = area_of(slide, "a", tissue="auto")
    why = area.left_out(Window(500, 300, 200, 300))
    assert np.array_equal(why == 0, found[500:700, 300:600])
    assert np.array_equal(why == 1 + LEFT_OUT.index("glass"), why > 0)


def test_where_there_is_no_tissue_nothing_is_left_out():
    glass = np.random.default_rng(0).normal(240, 2, (3, 800, 900)).clip(0, 255).astype(np.uint8)
    slide = ArrayReader(glass, resolution=Resolution(1e-6, 1e-6))
    assert not TissueMask.of(slide).mask.any()
    assert area_of(slide, "a", tissue=True).is_everything


def test_dark_ground_is_no_glass():
    """Fluorescence in red, green and blue, as scanners export it, is looked at as a whole."""
    pixels = np.random.default_rng(0).integers(0, 3, (3, 800, 900)).astype(np.uint8)
    pixels[2, 200:500, 300:700] += 120
    slide = ArrayReader(pixels, resolution=Resolution(1e-6, 1e-6))
    assert area_of(slide, "a", tissue="auto").is_everything


def test_maps_and_plain_images_are_no_slides():
    pixels, fine = slide_pixels(50, 60)[0], Resolution(1e-6, 1e-6)
    assert not is_slide(ArrayReader(pixels))
    assert not is_slide(ArrayReader(pixels, resolution=Resolution(1e-4, 1e-4)))
    assert not is_slide(ArrayReader(pixels[:1], resolution=fine))
    assert not is_slide(ArrayReader(pixels.astype(np.uint16), resolution=fine))
    assert not is_slide(ArrayReader(pixels, resolution=fine, georeference=Georeference("", TURNED)))


def test_tissue_of_a_real_slide():
    root = os.environ.get("FOVEATE_DATA")
    path = Path(root or ".") / "slides" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("FOVEATE_DATA has no slides")
    with open_image(path) as slide:
        assert is_slide(slide)
        mask = TissueMask.of(slide)
        pixels = slide.read(Window.of(slide.size))
    inside = mask.inside(Window(0, 0, *pixels.shape[1:]))
    assert 0.35 < inside.mean() < 0.45
    # What is darkest is nuclei, all of them inside; the lower left corner is glass.
    assert inside[pixels.max(axis=0) < 90].mean() > 0.99
    assert not inside[-300:, :300].any()
