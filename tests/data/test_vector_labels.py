"""Labels in polygons: every kind of file gives the pixels that a slow drawing of the same outlines gives."""

import json
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.errors import CRSError
from rasterio.warp import transform

from foveate.data.config import DataConfig
from foveate.data.images import open_working
from foveate.data.labels import LabelReader, open_source
from foveate.data.labels import shapes as shapes_module
from foveate.data.labels import vector as vector_module
from foveate.data.labels.shapes import _unpacked
from foveate.data.readers import open_image
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import Size, Window
from toys import write_image

HEIGHT, WIDTH = 700, 560
UTM = {"crs": "EPSG:32632", "transform": Affine(2, 0, 500000, 0, -2, 5400000)}
# (class, outline) in pixels, in file order; the second overlaps the first and has a hole.
DISC = [(300 + 150 * np.cos(t), 250 + 150 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 40)]
HOLED = shapely.Polygon(
    [(200.3, 300.2), (520.7, 320.4), (500.1, 660.9), (180.5, 640.2)], [[(260, 400), (400, 400), (400, 560), (260, 560)]]
)
SHAPES = [("tumour", shapely.Polygon(DISC)), ("stroma", HOLED)]
COLORS = {"ground": "#000000", "tumour": "#ff0000", "stroma": "#00ff00"}
CLASSES = [{"name": name, "color": color} for name, color in COLORS.items()]


def expected(shapes=SHAPES):
    """Pixel by pixel: the last outline that holds the centre."""
    cols, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, outline in shapes:
        labels[shapely.contains_xy(outline, cols, rows)] = list(COLORS).index(name)
    return labels


def feature(name, outline, key="class"):
    properties = {} if name is None else {key: name}
    return {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(outline)}


def collection(shapes=SHAPES, key="class", **more):
    return {"type": "FeatureCollection", "features": [feature(*shape, key) for shape in shapes], **more}


def write(path, tree):
    path.write_text(json.dumps(tree))
    return path


def on_ground(outline):
    return shapely.transform(outline, lambda xy: np.stack([500000 + 2 * xy[:, 0], 5400000 - 2 * xy[:, 1]], axis=1))


def labels_of(tmp_path, path, profile=None, **vectors):
    image = tmp_path / "scan.tif"
    if not image.exists():
        write_image(image, np.zeros((3, HEIGHT, WIDTH), np.uint8), **(profile or {}))
    config = DataConfig(folder="x", classes=CLASSES, vectors=vectors)
    with open_image(image) as reader:
        return LabelReader(open_source(path, reader, config, open_image))


def whole(labels):
    return labels.read(Window(0, 0, HEIGHT, WIDTH))


def assert_same(labels, wanted):
    # A centre within a rounding of a border may fall to either side.
    assert (whole(labels) != wanted).mean() < 1e-4
    assert len(np.unique(wanted)) > 1


def test_geojson_in_pixels(tmp_path):
    assert_same(labels_of(tmp_path, write(tmp_path / "scan.geojson", collection())), expected())


def test_qupath(tmp_path):
    features = [feature({"name": name, "color": [200, 0, 0]}, one, "classification") for name, one in SHAPES]
    features.append(feature(None, shapely.box(0, 0, 20, 10), "classification"))
    labels = labels_of(tmp_path, write(tmp_path / "scan.geojson", features))
    wanted = expected()
    wanted[:10, :20] = 255
    assert_same(labels, wanted)
    assert any("1 of 3 polygons have no class" in note for note in labels.notes)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_tables_in_any_system(tmp_path, suffix, crs):
    def moved(xy):
        return xy if crs == "EPSG:32632" else np.stack(transform("EPSG:32632", crs, *xy.T), axis=1)

    outlines = [shapely.transform(shapely.segmentize(on_ground(one), 20), moved) for _, one in SHAPES]
    path = tmp_path / f"scan{suffix}"
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(outlines, object)), [np.array([name for name, _ in SHAPES], object)], ["class"],
        geometry_type="Polygon", crs=crs,
    )  # fmt: skip
    assert_same(labels_of(tmp_path, path, UTM), expected())


def test_a_command_that_reads_tables_is_quiet(tmp_path):
    """Their library brings a GDAL of its own, which lacks drivers that the command line switches off by name."""
    path, box = tmp_path / "scan.gpkg", shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)], object))
    pyogrio.raw.write(path, box, [np.array(["a"], object)], ["class"], geometry_type="Polygon", crs="EPSG:4326")
    code = f"import foveate.cli.app; from foveate.data.labels.shapes import *; read_shapes(Path({str(path)!r}), '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
@pytest.mark.parametrize("order", ["file", "smallest", "classes"])
def test_a_large_table_is_read_where_it_is_needed(tmp_path, monkeypatch, suffix, crs, order):
    """It gives what the same table gives when all of it is kept."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-300, 900, (400, 2))
    outlines = [
        on_ground(shapely.box(x, y, x + w, y + h))
        for (x, y), w, h in zip(corners, *rng.uniform(5, 90, (2, 400)), strict=True)
    ]
    if crs != "EPSG:32632":
        moved = lambda xy: np.stack(transform("EPSG:32632", crs, *xy.T), axis=1)  # noqa: E731
        outlines = [shapely.transform(one, moved) for one in outlines]
    names = rng.choice(np.array(["tumour", "stroma", ""], object), 400)
    path = tmp_path / f"scan{suffix}"
    options = {"geometry_type": "Polygon", "crs": crs}
    pyogrio.raw.write(path, shapely.to_wkb(np.array(outlines, object)), [names], ["class"], **options)
    kept = labels_of(tmp_path, path, UTM, order=order)
    read = []
    real = shapes_module.Table.within
    monkeypatch.setattr(vector_module, "MOST_KEPT", 100)
    monkeypatch.setattr(shapes_module.Table, "within", lambda self, box: read.append(real(self, box)) or read[-1])
    labels = labels_of(tmp_path, path, UTM, order=order)
    assert not read
    assert np.array_equal(whole(labels), whole(kept))
    assert len(np.unique(whole(kept))) == 4
    assert all(len(some.labels) < 250 for some in read)
    assert len(read) == 4  # tiles of 512 pixels
    assert all("of 400 polygons" in note for note in labels.notes)
    if crs == "EPSG:32632":
        assert [note.replace("about ", "") for note in labels.notes] == list(kept.notes)


def test_a_large_table_off_the_image_or_of_unknown_classes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_module, "MOST_KEPT", 1)
    outlines = shapely.to_wkb(np.array([on_ground(one) for _, one in SHAPES], object))
    options = {"geometry_type": "Polygon", "crs": "EPSG:32632"}
    for name, classes in (("far", ["tumour"] * 2), ("odd", ["tumour", "bone"])):
        moved = (
            shapely.to_wkb(shapely.transform(shapely.from_wkb(outlines), lambda xy: xy + 1e5))
            if name == "far"
            else outlines
        )
        pyogrio.raw.write(tmp_path / f"{name}.gpkg", moved, [np.array(classes, object)], ["class"], **options)
    with pytest.raises(DatasetError, match="none of the 2 polygons"):
        labels_of(tmp_path, tmp_path / "far.gpkg", UTM)
    with pytest.raises(DatasetError, match="bone"):
        labels_of(tmp_path, tmp_path / "odd.gpkg", UTM)


def test_geojson_in_longitude_and_latitude(tmp_path):
    def moved(xy):
        return np.stack(transform("EPSG:32632", "OGC:CRS84", *xy.T), axis=1)

    shapes = [(name, shapely.transform(shapely.segmentize(on_ground(one), 20), moved)) for name, one in SHAPES]
    assert_same(labels_of(tmp_path, write(tmp_path / "scan.geojson", collection(shapes)), UTM), expected())


def test_coordinates_that_cannot_be_converted_are_those_of_a_file(tmp_path, monkeypatch):
    def refused(*_):
        raise CRSError("no operation found")

    monkeypatch.setattr("foveate.data.place.warp", refused)
    shapes = [("tumour", shapely.box(8.9, 48.7, 9.0, 48.8))]
    with pytest.raises(DatasetError, match=r"scan\.geojson cannot be converted to pixels of .*no operation found"):
        labels_of(tmp_path, write(tmp_path / "scan.geojson", collection(shapes)), UTM)


def test_rows_that_qgis_counts_downwards(tmp_path):
    shapes = [(name, shapely.transform(one, lambda xy: xy * (1, -1))) for name, one in SHAPES]
    labels = labels_of(tmp_path, write(tmp_path / "scan.geojson", collection(shapes)))
    assert_same(labels, expected())
    assert "mirrored" in " ".join(labels.notes)


def flat(ring):
    return [value for point in ring.coords for value in point[:2]]


def coco(annotations):
    return {
        "images": [{"id": 7, "file_name": "train/scan.tif"}, {"id": 8, "file_name": "other.tif"}],
        "categories": [{"id": 1, "name": "tumour"}, {"id": 5, "name": "stroma"}],
        "annotations": annotations,
    }


def test_coco_polygons_of_the_image_only(tmp_path):
    disc = {"image_id": 7, "category_id": 1, "segmentation": [flat(SHAPES[0][1].exterior)]}
    other = {"image_id": 8, "category_id": 5, "segmentation": [flat(HOLED.exterior)]}
    labels = labels_of(tmp_path, write(tmp_path / "all.json", coco([disc, other])))
    assert_same(labels, expected(SHAPES[:1]))


def runs(mask):
    values = mask.T.ravel()
    changes = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff([0, *changes, len(values)]).tolist()
    return lengths if values[0] == 0 else [0, *lengths]


def packed(counts):
    """As COCO's own rleToString."""
    text = ""
    for i, count in enumerate(counts):
        value = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(bits + (32 if more else 0) + 48)
    return text


@pytest.mark.parametrize("compressed", [False, True])
def test_coco_run_lengths(tmp_path, compressed):
    mask = (expected() == 2).astype(np.uint8)
    counts = runs(mask)
    assert _unpacked(packed(counts)) == counts
    annotation = {
        "image_id": 7, "category_id": 5,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": packed(counts) if compressed else counts},
    }  # fmt: skip
    labels = labels_of(tmp_path, write(tmp_path / "all.json", coco([annotation])))
    assert np.array_equal(whole(labels), mask * 2)


def test_labelme(tmp_path):
    shapes = [{"label": name, "points": list(one.exterior.coords), "shape_type": "polygon"} for name, one in SHAPES[:1]]
    assert_same(labels_of(tmp_path, write(tmp_path / "scan.json", {"shapes": shapes})), expected(SHAPES[:1]))


def test_order_where_polygons_overlap(tmp_path):
    path = write(tmp_path / "scan.geojson", collection(SHAPES[::-1]))
    assert_same(labels_of(tmp_path, path), expected(SHAPES[::-1]))
    assert_same(labels_of(tmp_path, path, order="classes"), expected())
    small = [("stroma", shapely.box(280, 230, 320, 270)), *SHAPES[:1]]
    nested = write(tmp_path / "nested.geojson", collection(small))
    assert_same(labels_of(tmp_path, nested, order="smallest"), expected(small[::-1]))


def test_windows_and_coarse_reads_agree_with_the_whole(tmp_path):
    labels = labels_of(tmp_path, write(tmp_path / "scan.geojson", collection()))
    all_of_it = whole(labels)
    window = Window(490, 500, 40, 40)  # over the corner of four tiles
    assert np.array_equal(labels.read(window), all_of_it[490:530, 500:540])
    coarse = labels.read(Window(0, 0, 512, 512), Size(64, 64))
    assert np.array_equal(coarse, all_of_it[4:512:8, 4:512:8])
    beyond = labels.read(Window(-10, -10, 20, 20))
    assert (beyond[:10] == 255).all()
    assert np.array_equal(beyond[10:, 10:], all_of_it[:10, :10])


def test_the_working_resolution_scales_outlines(tmp_path):
    path = write(tmp_path / "scan.geojson", collection())
    labels_of(tmp_path, path)
    config = DataConfig(folder="x", classes=CLASSES, pixel_size="2 um", assumed_pixel_size="1 um")
    with open_working(tmp_path / "scan.tif", config) as image:
        labels = LabelReader(open_source(path, image, config, open_image))
    half = labels.read(Window(0, 0, HEIGHT // 2, WIDTH // 2))
    assert (half != expected()[1::2, 1::2]).mean() < 0.01


def test_unlabelled_area_is_the_first_class_or_what_is_said(tmp_path):
    path = write(tmp_path / "scan.geojson", collection())
    assert whole(labels_of(tmp_path, path))[0, 0] == 0
    assert whole(labels_of(tmp_path, path, unlabelled="ignore"))[0, 0] == 255
    assert whole(labels_of(tmp_path, path, unlabelled="stroma"))[0, 0] == 2


def test_names_are_mapped_and_unknown_ones_refused(tmp_path):
    shapes = [("Krebs", SHAPES[0][1]), ("STROMA", HOLED)]
    path = write(tmp_path / "scan.geojson", collection(shapes))
    with pytest.raises(DatasetError, match=r"polygons of 'Krebs'.*data\.vectors\.classes=\{Krebs: stroma\}"):
        labels_of(tmp_path, path)
    assert_same(labels_of(tmp_path, path, classes={"Krebs": "tumour"}), expected())
    ignored = whole(labels_of(tmp_path, path, classes={"Krebs": "ignore"}))
    assert set(np.unique(ignored)) == {0, 2, 255}
    with pytest.raises(ValueError, match="allowed are ground, tumour, stroma and ignore"):
        DataConfig(folder="x", classes=CLASSES, vectors={"classes": {"Krebs": "cancer"}})


def test_numbers_name_classes_by_their_ids(tmp_path):
    shapes = [(1, SHAPES[0][1]), (2.0, HOLED)]
    assert_same(labels_of(tmp_path, write(tmp_path / "scan.geojson", collection(shapes, "class_id"))), expected())


def test_a_property_of_another_name_is_named(tmp_path):
    path = write(tmp_path / "scan.geojson", collection(key="gewebe"))
    with pytest.raises(DatasetError, match=r"they have gewebe.*data\.vectors\.attribute"):
        labels_of(tmp_path, path)
    assert_same(labels_of(tmp_path, path, attribute="gewebe"), expected())
    with pytest.raises(DatasetError, match="no 'tissue'"):
        labels_of(tmp_path, path, attribute="tissue")


def test_what_is_no_polygon_is_counted_and_bow_ties_are_repaired(tmp_path):
    bow = {"type": "Polygon", "coordinates": [[[10, 10], [50, 50], [50, 10], [10, 50], [10, 10]]]}
    short = {"type": "Polygon", "coordinates": [[[10, 10], [50, 50]]]}
    odd = [{"type": "Feature", "properties": {"class": "stroma"}, "geometry": one} for one in (bow, short, None)]
    point = feature("tumour", shapely.Point(5, 5))
    tree = {"type": "FeatureCollection", "features": [*collection()["features"], *odd, point]}
    labels = labels_of(tmp_path, write(tmp_path / "scan.geojson", tree))
    notes = " ".join(labels.notes)
    for told in (
        "self-intersecting polygons, repaired: 1",
        "with fewer than three corners, left out: 2",
        "points and lines, left out: 1",
    ):
        assert told in notes
    drawn = whole(labels)
    assert (drawn[30, 12], drawn[30, 48], drawn[12, 30], drawn[48, 30]) == (2, 2, 0, 0)
    assert (drawn[8:52, 8:52] == 2).sum() == pytest.approx(800, abs=60)


def test_polygons_off_the_image(tmp_path):
    away = [(name, shapely.transform(one, lambda xy: xy + 10_000)) for name, one in SHAPES]
    with pytest.raises(DatasetError, match=r"none of the 2 polygons.*data\.vectors\.coordinates"):
        labels_of(tmp_path, write(tmp_path / "scan.geojson", collection(away)))
    labels = labels_of(tmp_path, write(tmp_path / "scan.geojson", collection([*SHAPES, away[0]])))
    assert_same(labels, expected())
    assert "1 of 3 polygons lie outside the image" in " ".join(labels.notes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "polygon features"),
        ('{"type": "Topology"}', "Topology"),
        ('{"type": "FeatureCollection"}', "not a GeoJSON"),
        ('{"annotations": 3, "images": [], "categories": []}', "not a GeoJSON, COCO or LabelMe"),
        (json.dumps(collection([("tumour", shapely.Point(1, 1))])), "no polygon with an area"),
    ],
)  # fmt: skip
def test_files_that_are_no_labels_are_refused(tmp_path, text, told):
    path = tmp_path / "scan.geojson"
    path.write_text(text)
    with pytest.raises(DatasetError, match=told):
        labels_of(tmp_path, path)


def test_a_file_without_features_labels_nothing(tmp_path):
    labels = labels_of(tmp_path, write(tmp_path / "scan.geojson", collection([])))
    assert not whole(labels).any()


def test_a_system_that_is_not_known_is_named(tmp_path):
    tree = collection(crs={"type": "name", "properties": {"name": "EPSG:999999"}})
    with pytest.raises((DatasetError, ConfigError), match="unknown coordinate reference system"):
        labels_of(tmp_path, write(tmp_path / "scan.geojson", tree), UTM)


@pytest.mark.filterwarnings("ignore:GPKG")
def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "scan.gpkg"
    path.write_bytes(b"SQLite format 3\x00" + b"\x00" * 100)
    with pytest.raises(DatasetError, match="cannot be read"):
        labels_of(tmp_path, path)
