import json

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from rasterio.warp import transform_geom

from foveate.data.readers.gdal import open_dataset
from foveate.errors import ConfigError, ImageReadError, OutputExistsError, UnsupportedImageError
from foveate.geometry import Georeference, Resolution, Size, Window
from foveate.tiff.raster import RasterSpec, open_raster
from foveate.writers import PolygonsConfig
from foveate.writers import polygons as write_module
from foveate.writers.class_map import open_class_maps
from foveate.writers.polygons import polygons, write_polygons
from toys import write_image

UTM = Georeference(rasterio.CRS.from_epsg(32633).to_wkt(), (0.5, 0, 400000, 0, -0.5, 5000000))
LONLAT = Georeference(rasterio.CRS.from_epsg(4326).to_wkt(), (1e-4, 0, 10, 0, -1e-4, 50))


def blobs(seed=0, height=90, width=120, classes=4):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (-(-height // 6), -(-width // 6)), dtype=np.uint8)
    ids = np.repeat(np.repeat(coarse, 6, 0), 6, 1)[:height, :width]
    ids[rng.random(ids.shape) < 0.02] = 1
    return ids


def class_map(path, ids, place=None, resolution=None):
    spec = RasterSpec(
        Size(*ids.shape), "uint8", place, resolution, ("class",), [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)],
        {f"class_{i}": name for i, name in enumerate(["ground", "tree", "roof", "water"])}, 255, overviews="mode",
    )  # fmt: skip
    with open_raster(path, spec) as raster:
        raster.write(Window.of(spec.size), ids)
    return path


def written(source, path, coordinates="auto", **options):
    count = write_polygons(str(source), str(path), PolygonsConfig(**options), coordinates=coordinates, overwrite=True)
    collection = json.loads(path.read_text())
    assert count == len(collection["features"])
    return collection


def geometries(collection):
    return [shapely.geometry.shape(feature["geometry"]) for feature in collection["features"]]


@pytest.mark.parametrize("at_once", [1, 700, 10**6])
def test_the_file_is_the_class_map(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(write_module, "_SIDES_AT_ONCE", at_once)
    ids = blobs()
    ids[40:50, 10:90] = 255
    found = written(class_map(tmp_path / "c.tif", ids), tmp_path / "c.geojson")
    shown = geometries(found)
    assert all(shape.is_valid for shape in shown)
    values = [feature["properties"]["class_id"] for feature in found["features"]]
    drawn = rasterize(zip(shown, values, strict=True), ids.shape, fill=255, dtype="uint8")
    assert np.array_equal(drawn, ids)
    assert len(shown) == len(list(shapes(ids, mask=ids != 255, connectivity=4)))


def test_slides_open_in_qupath(tmp_path):
    """Annotations in pixels, classified by name and colour."""
    source = class_map(tmp_path / "c.tif", blobs(), resolution=Resolution(0.5e-6, 0.25e-6))
    found = written(source, tmp_path / "c.geojson")
    assert set(found) == {"type", "features"}
    for feature in found["features"]:
        facts = feature["properties"]
        assert facts["objectType"] == "annotation"
        assert (
            facts["classification"]["name"] == facts["class"] == ["ground", "tree", "roof", "water"][facts["class_id"]]
        )
        assert facts["area_um2"] == pytest.approx(facts["area_px"] / 8)
        assert feature["geometry"]["type"] == "Polygon"
        assert all(isinstance(x, int) for x in feature["geometry"]["coordinates"][0][0])
    assert found["features"][0]["properties"]["classification"]["color"] in (
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [9, 9, 9],
    )


def test_maps_open_in_place(tmp_path):
    """GDAL, and so QGIS, reads the system's name; the polygons lie on the pixels."""
    ids = blobs()
    source = class_map(tmp_path / "c.tif", ids, UTM)
    found = written(source, tmp_path / "c.geojson")
    assert found["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    assert all(f["properties"]["area_m2"] == f["properties"]["area_px"] / 4 for f in found["features"])
    shown = geometries(found)
    assert all(shapely.is_ccw(shape.exterior) for shape in shown)
    values = [f["properties"]["class_id"] for f in found["features"]]
    place = rasterio.Affine(*UTM.transform)
    assert np.array_equal(
        rasterize(zip(shown, values, strict=True), ids.shape, 255, transform=place, dtype="uint8"), ids
    )


@pytest.mark.parametrize("place", [UTM, LONLAT])
def test_longitude_and_latitude(tmp_path, place):
    source = class_map(tmp_path / "c.tif", blobs(), place)
    plain = geometries(written(source, tmp_path / "a.geojson", coordinates="auto"))
    found = written(source, tmp_path / "b.geojson", coordinates="lonlat")
    assert "crs" not in found
    for shape, expected in zip(geometries(found), plain, strict=True):
        assert shapely.is_ccw(shape.exterior)
        moved = transform_geom(rasterio.CRS.from_wkt(place.crs), "OGC:CRS84", shapely.geometry.mapping(expected))
        assert shape.equals_exact(shapely.geometry.shape(moved), 1e-7)


def test_a_map_may_be_written_in_pixels(tmp_path):
    source = class_map(tmp_path / "c.tif", blobs(), UTM)
    found = written(source, tmp_path / "c.geojson", coordinates="pixels")
    bounds = shapely.unary_union(geometries(found)).bounds
    assert bounds == (0, 0, 120, 90)


def test_classes_are_left_out_and_small_regions_too(tmp_path):
    source = class_map(tmp_path / "c.tif", blobs())
    everything = written(source, tmp_path / "a.geojson")["features"]
    found = written(source, tmp_path / "b.geojson", leave_out=("ground", "roof"), min_area=30)["features"]

    def kept(facts):
        return facts["class"] in {"tree", "water"} and facts["area_px"] >= 30

    expected = [f["properties"] for f in everything if kept(f["properties"])]
    key = json.dumps
    assert sorted(map(key, expected)) == sorted(key(f["properties"]) for f in found)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.5, 4.0]))
def test_simpler_polygons_are_valid_and_near(seed, tolerance):
    ids = blobs(seed, 40, 50)
    plain = list(polygons(iter([ids]), PolygonsConfig()))
    simple = list(polygons(iter([ids]), PolygonsConfig(simplify=tolerance)))
    for (one, area), (other, same_area) in zip(plain, simple, strict=True):
        before, after = one.shape, other.shape
        assert after.is_valid
        assert area == same_area == before.area
        assert len(after.exterior.coords) <= len(before.exterior.coords)
        assert shapely.is_ccw(after.exterior)
        assert shapely.hausdorff_distance(before.boundary, after.boundary) <= 2 * tolerance


def test_a_class_map_without_names_or_colours(tmp_path):
    path = write_image(tmp_path / "c.png", blobs()[None])
    facts = [f["properties"] for f in written(path, tmp_path / "c.geojson", leave_out=("class 0",))["features"]]
    assert {f["class"] for f in facts} == {"class 1", "class 2", "class 3"}
    assert len({tuple(f["classification"]["color"]) for f in facts}) == 3


def test_an_empty_class_map_has_no_polygons(tmp_path):
    source = class_map(tmp_path / "c.tif", np.full((5, 6), 255, np.uint8))
    assert written(source, tmp_path / "c.geojson")["features"] == []


def test_mistakes_are_named(tmp_path):
    source, out = class_map(tmp_path / "c.tif", blobs()), tmp_path / "c.geojson"
    with pytest.raises(ConfigError, match="no class 'sky' to leave out; the class map has ground, tree"):
        write_polygons(source, out, PolygonsConfig(leave_out=("sky",)))
    with pytest.raises(ConfigError, match="'crs' need"):
        write_polygons(source, out, coordinates="crs")
    with pytest.raises(ImageReadError, match="no class map"):
        write_polygons(tmp_path / "other.tif", out)
    photograph = write_image(tmp_path / "photo.png", np.zeros((3, 9, 9), np.uint8))
    with pytest.raises(UnsupportedImageError, match="3 bands of uint8"):
        write_polygons(photograph, out)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnsupportedImageError, match="OME-Zarr"):
        write_polygons(tmp_path / "folder", out)
    with pytest.raises(ConfigError, match=r"ends in \.geojson or"):
        write_polygons(source, tmp_path / "c.gpkg")
    confidence = write_image(tmp_path / "confidence.tif", blobs()[None])
    with open_dataset(confidence, "r+") as file:
        file.scales = (1 / 254,)
    with pytest.raises(UnsupportedImageError, match="its values are numbers"):
        write_polygons(confidence, out)
    assert not out.exists()
    out.write_text("precious")
    with pytest.raises(OutputExistsError):
        write_polygons(source, out)
    assert out.read_text() == "precious"


def test_screen_resolutions_say_nothing(tmp_path):
    path = write_image(tmp_path / "c.tif", blobs()[None])
    with open_dataset(path, "r+") as file:
        file.update_tags(TIFFTAG_XRESOLUTION="72", TIFFTAG_YRESOLUTION="72", TIFFTAG_RESOLUTIONUNIT="2")
    with open_class_maps(path) as (source,):
        assert source.resolution is None


def test_real_labels(real_data, tmp_path):
    """The masks of aerial images, against GDAL on the whole."""
    source = real_data / "dubai" / "masks" / "tile1.png"
    with open_dataset(source) as file:
        ids = file.read(1)
    found = written(source, tmp_path / "c.geojson")["features"]
    expected = sorted((int(v), shapely.geometry.shape(s).area) for s, v in shapes(ids, mask=ids != 255, connectivity=4))
    assert sorted((f["properties"]["class_id"], f["properties"]["area_px"]) for f in found) == expected
