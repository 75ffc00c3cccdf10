"""Files of outlines with classes: GeoJSON (QuPath's too), GeoPackage, shapefile, COCO and LabelMe."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

from foveate.data.place import named_system
from foveate.errors import DatasetError, reason_of, translated
from foveate.texts import read_json

# Where a class is looked for when the configuration names no attribute; QuPath's first.
_ATTRIBUTES = (
    "classification", "class", "class_name", "classname", "label", "category", "category_name", "class_id", "classid",
    "category_id", "type", "name",
)  # fmt: skip
TABLES = (".gpkg", ".shp")
VECTORS = (".geojson", ".json", *TABLES)
_WANTED = "files with this suffix hold labels as GeoJSON, COCO or LabelMe"
_Areal: TypeAlias = tuple[NDArray[Any], list[Any], tuple[str, ...]]
Bounds: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top, in the file's coordinates
_MOST_BYTES = 512 << 20  # of a text; it takes some twenty times as much memory


@dataclass(frozen=True)
class Shapes:
    """The outlines in a file, in its own coordinates and order."""

    geometries: NDArray[Any]  # (n,) shapely geometries, valid polygons or multipolygons
    labels: list[Any]  # the class of each as the file has it, a text or a number; None without one
    system: rasterio.CRS | None  # of the coordinates; None where the file names none
    in_pixels: bool  # whether the format is always in pixels of the image
    notes: tuple[str, ...]  # what was repaired or left out, with counts


def read_shapes(
    path: Path, image: str, attribute: str | None = None, layer: str | None = None, *, bare: bool = False
) -> Shapes:
    """All outlines of a file that belong to an image, by the name of its file where there are several (COCO).

    The attribute is the property or column that holds the class, one of the usual names when None; the layer is that of
    a GeoPackage. A `bare` file may name no classes.

    Raises:
        DatasetError: when the file cannot be read, or no class is found in it.
    """
    with translated(DatasetError, f"{path} holds labels that cannot be used", "it is damaged"):
        if path.suffix.lower() in TABLES:
            return Table.of(path, layer, attribute, bare=bare).within()
        if not path.is_file():
            raise DatasetError(f"no labels at {path}")
        tree = read_json(path, DatasetError, _WANTED, _MOST_BYTES)
        in_pixels = isinstance(tree, dict) and ("annotations" in tree or "shapes" in tree)
        geometries, properties = _from_json(tree, path, image)
        keys = list(dict.fromkeys(key for one in properties for key in one))
        chosen = _attribute(keys, attribute, path, bare) if properties else ""
        outlines, labels, notes = _areal(geometries, [_value(one.get(chosen)) for one in properties], path)
        return Shapes(outlines, labels, None if in_pixels else named_system(tree, path), in_pixels, notes)


class Table(NamedTuple):
    """A GeoPackage or shapefile that is read in parts, by its spatial index."""

    path: Path  # of the file
    layer: str  # that is read
    features: int  # how many it has
    system: rasterio.CRS | None  # of its coordinates; None where the file names none
    attribute: str  # property that holds the class; empty for none

    @classmethod
    def of(cls, path: Path, layer: str | None, attribute: str | None, *, bare: bool = False) -> Self:
        """What the header of a file says."""
        with _reading(path) as pyogrio:
            layers = pyogrio.list_layers(path)[:, 0].tolist()
            if layer is None and len(layers) > 1:
                raise DatasetError(f"{path} has the layers {', '.join(layers)}; choose one with data.vectors.layer")
            chosen = layer or str(layers[0])
            facts = pyogrio.read_info(path, layer=chosen, force_feature_count=True)
        system = rasterio.CRS.from_user_input(facts["crs"]) if facts["crs"] else None
        fields, features = [str(name) for name in facts["fields"]], int(facts["features"])
        return cls(path, chosen, features, system, _attribute(fields, attribute, path, bare) if features else "")

    def labels(self, bounds: Bounds) -> list[Any]:
        """The class of each outline that meets a box, without reading any."""
        with _reading(self.path) as pyogrio:
            options = {"layer": self.layer, "bbox": bounds, "columns": [self.attribute], "read_geometry": False}
            (values,) = pyogrio.raw.read(self.path, **options)[3]
        return list(map(_value, values.tolist()))

    def within(self, bounds: Bounds | None = None) -> Shapes:
        """The outlines that meet a box, or all, in the order of the file."""
        columns = [self.attribute] if self.attribute else []
        with _reading(self.path) as pyogrio:
            options = {"layer": self.layer, "bbox": bounds, "columns": columns, "return_fids": True}
            _, numbers, stored, fields = pyogrio.raw.read(self.path, **options)
        order = np.argsort(numbers, kind="stable")
        geometries = shapely.from_wkb(stored[order], on_invalid="ignore").tolist()
        labels = list(map(_value, fields[0][order].tolist())) if columns else [None] * len(order)
        outlines, labels, notes = _areal(geometries, labels, self.path, refuse=bounds is None)
        return Shapes(outlines, labels, self.system, False, notes)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The package that reads tables; what it raises names the file."""
    # While it is loaded, its GDAL warns of each driver in GDAL_SKIP that it was not built with.
    log = os.environ.setdefault("CPL_LOG", os.devnull)
    try:
        import pyogrio.raw  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise DatasetError(f"{path.suffix} files ({path}) need pyogrio; pip install 'foveate[vector]'") from None
    finally:
        if log == os.devnull:
            del os.environ["CPL_LOG"]
    _check_first_bytes(path)
    try:
        yield pyogrio
    except DatasetError:
        raise
    except Exception as error:  # of whatever is in the file
        raise DatasetError(f"{path} cannot be read: {reason_of(error)}") from None


def _check_first_bytes(path: Path) -> None:
    """Refuse a file that is something else than its name says, as it may name other files."""
    try:
        with path.open("rb") as file:
            first = file.read(16)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    wanted = b"SQLite format 3\x00" if path.suffix.lower() == ".gpkg" else b"\x00\x00\x27\x0a"
    if not first.startswith(wanted):
        raise DatasetError(f"{path} is not a {path.suffix} file and cannot be read as one")


def _attribute(keys: Sequence[str], attribute: str | None, path: Path, bare: bool) -> str:
    """The property that holds the class, of those that there are; empty where a bare file has none."""
    lower = {key.lower(): key for key in reversed(keys)}
    attribute = attribute or next((lower[name] for name in _ATTRIBUTES if name in lower), None)
    if (attribute is None and not bare) or (attribute and attribute not in keys):
        named = f"no {attribute!r}" if attribute else "no property that names a class"
        raise DatasetError(
            f"the polygons in {path} have {named}; they have {', '.join(keys) or 'no properties'}. Set "
            f"data.vectors.attribute to the property that holds the class, for example "
            f"data.vectors.attribute={keys[0] if keys else 'class'}"
        )
    return attribute or ""


def _value(found: Any) -> Any:
    """A class as a text or whole number; QuPath's is a dictionary with a name."""
    if isinstance(found, Mapping):
        found = found.get("name")
    if isinstance(found, float):
        return None if np.isnan(found) else int(found) if found.is_integer() else str(found)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return None if found is None else str(found).strip() or None


def _areal(geometries: list[Any], labels: list[Any], path: Path, *, refuse: bool = True) -> _Areal:
    """What has an area, made valid, with its labels, and what was repaired or left out."""
    kept, counts = [], Counter[str]()
    for i, geometry in enumerate(geometries):
        if geometry is None or geometry.is_empty:
            counts["polygons with fewer than three corners, left out"] += 1
            continue
        if geometry.geom_type not in ("Polygon", "MultiPolygon", "GeometryCollection"):
            counts["points and lines, left out"] += 1
            continue
        if not geometry.is_valid:
            counts["self-intersecting polygons, repaired"] += 1
            geometry = shapely.make_valid(geometry)  # noqa: PLW2901
        parts = [part for part in shapely.get_parts(geometry).tolist() if "Polygon" in part.geom_type and part.area > 0]
        if not parts:
            counts["polygons without an area, left out"] += 1
            continue
        kept.append((parts[0] if len(parts) == 1 else shapely.union_all(parts), i))
    told = "; ".join(f"{what}: {count}" for what, count in counts.items())
    if geometries and not kept and refuse:
        raise DatasetError(f"{path} has no polygon with an area; {told}")
    outlines = np.array([geometry for geometry, _ in kept], object)
    return outlines, [labels[i] for _, i in kept], (f"{path.name}: {told}",) if told else ()


def _from_json(tree: Any, path: Path, image: str) -> tuple[list[Any], list[dict[str, Any]]]:
    try:
        if isinstance(tree, dict) and "annotations" in tree:
            found = list(_from_coco(tree, path, image))
        elif isinstance(tree, dict) and "shapes" in tree:
            found = [(_polygon(one["points"]), {"label": one.get("label")}) for one in tree["shapes"]]
        else:
            found = list(_features(tree, path))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} is not a GeoJSON, COCO or LabelMe file: {error!r}") from None
    return [geometry for geometry, _ in found], [properties for _, properties in found]


def _features(tree: Any, path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    if isinstance(tree, list):  # QuPath writes a bare list of features too
        tree = {"type": "FeatureCollection", "features": tree}
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "FeatureCollection":
        for feature in tree["features"]:
            yield from _features(feature, path)
    elif kind == "Feature":
        yield _geometry(tree.get("geometry")), dict(tree.get("properties") or {})
    elif kind in ("Polygon", "MultiPolygon"):
        yield _geometry(tree), {}
    else:
        raise DatasetError(f"{path} holds {kind or type(tree).__name__}; labels must be polygon features with a class")


def _geometry(tree: Any) -> Any:
    """A shapely geometry; None for one that cannot be made, as of a ring with too few corners."""
    try:
        return None if tree is None else shapely.geometry.shape(tree)
    except (shapely.errors.ShapelyError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None


def _polygon(ring: Any) -> Any:
    return _geometry({"type": "Polygon", "coordinates": [ring]})


def _from_coco(tree: Any, path: Path, image: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    names = {one["id"]: one["name"] for one in tree["categories"]}
    images = {one["id"]: Path(str(one["file_name"]).replace("\\", "/")) for one in tree["images"]}
    mine = {key for key, file in images.items() if file.name == image or file.stem == Path(image).stem}
    if not mine and len(images) > 1:
        some = ", ".join(map(str, list(images.values())[:5]))
        raise DatasetError(f"{path} has no labels for the image {image}; it has labels for {some}")
    for one in tree["annotations"]:
        if one["image_id"] in (mine or images):
            label = {"category": names.get(one["category_id"], one["category_id"])}
            drawn = one["segmentation"]
            rings = (np.reshape(flat, (-1, 2)).tolist() for flat in drawn)
            for geometry in _run_lengths(drawn) if isinstance(drawn, Mapping) else map(_polygon, rings):
                yield geometry, label


def _run_lengths(segmentation: Mapping[str, Any]) -> Iterator[Any]:
    """Outlines of a mask in runs of zeros and ones, column by column."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    values = np.repeat(np.arange(len(lengths), dtype=np.uint8) % 2, lengths)
    mask = np.ascontiguousarray(values.reshape(width, height).T)
    for outline, _ in rasterio.features.shapes(mask, mask=mask.astype(bool)):
        yield _geometry(outline)


def _unpacked(text: str) -> list[int]:
    """Run lengths from COCO's compressed text.

    Source: rleFrString of the COCO API (maskApi.c): five bits a character, least first, the sixth says that more
    follow; from the third number on each is a difference to the one before the last.
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 31) << shift
            more, place, shift = bool(bits & 32), place + 1, shift + 5
            if not more and bits & 16:
                value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
