"""Files of outlines with classes: GeoJSON (QuPath's too), GeoPackage, shapefile, COCO and LabelMe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import CRS

from foveate.data.labels._shapes_json import from_json, read_json_tree
from foveate.data.roi import named_system
from foveate.errors import DatasetError, reason_of, translated

# Where a class is looked for when the configuration names no attribute; QuPath's first.
_ATTRIBUTES = (
    "classification", "class", "class_name", "classname", "label", "category", "category_name", "class_id", "classid",
    "category_id", "type", "name",
)  # fmt: skip

TABLES = (".gpkg", ".shp")

VECTORS = (".geojson", ".json", *TABLES)


@dataclass(frozen=True)
class Shapes:
    """The outlines in a file, in its own coordinates and order.

    Attributes:
        geometries: (n,) shapely geometries, valid polygons or multipolygons.
        labels: the class of each as the file has it, a text or a number; None without one.
        system: of the coordinates; None where the file names none.
        in_pixels: whether the format is always in pixels of the image.
        notes: what was repaired or left out, with counts.
    """

    geometries: NDArray[Any]
    labels: list[Any]
    system: CRS | None
    in_pixels: bool
    notes: tuple[str, ...]


def read_shapes(path: Path, image: str, attribute: str | None = None, layer: str | None = None) -> Shapes:
    """All outlines of a file that belong to an image.

    Args:
        path: the file.
        image: name of the image's file, for files that hold the outlines of several images (COCO).
        attribute: property or column that holds the class; one of the usual names when None.
        layer: of a GeoPackage with several.

    Raises:
        DatasetError: when the file cannot be read, or no class is found in it.
    """
    with translated(DatasetError, f"{path} holds labels that cannot be used", "it is damaged"):
        if path.suffix.lower() in TABLES:
            geometries, properties, system = _read_table(path, layer)
            in_pixels = False
        else:
            tree = read_json_tree(path)
            in_pixels = isinstance(tree, dict) and ("annotations" in tree or "shapes" in tree)
            geometries, properties = from_json(tree, path, image)
            system = None if in_pixels else named_system(tree, path)
        if geometries and not any(properties):
            properties = [{} for _ in geometries]
        labels = _labels(properties, attribute, path)
        kept, notes = _areal(geometries, path)
        return Shapes(
            np.array([geometry for geometry, _ in kept], object), [labels[i] for _, i in kept], system, in_pixels, notes
        )


class Table(NamedTuple):
    """A GeoPackage or shapefile that is read in parts, by its spatial index.

    Attributes:
        path: of the file.
        layer: that is read.
        features: how many it has.
        system: of its coordinates; None where the file names none.
        attribute: property that holds the class.
    """

    path: Path
    layer: str
    features: int
    system: CRS | None
    attribute: str

    @classmethod
    def of(cls, path: Path, layer: str | None, attribute: str | None) -> Table:
        """What the header of a file says.

        Raises:
            DatasetError: when it cannot be read, or no class is found in it.
        """
        with _reading(path) as pyogrio:
            chosen = _layer(pyogrio, path, layer)
            facts = pyogrio.read_info(path, layer=chosen, force_feature_count=True)
            system = CRS.from_user_input(facts["crs"]) if facts["crs"] else None
            fields = [str(name) for name in facts["fields"]]
            return cls(path, chosen, int(facts["features"]), system, _attribute(fields, attribute, path))

    def labels(self, bounds: Bounds) -> list[Any]:
        """The class of each outline that meets a box, without reading any."""
        with _reading(self.path) as pyogrio:
            options = {"layer": self.layer, "bbox": bounds, "columns": [self.attribute], "read_geometry": False}
            (values,) = pyogrio.raw.read(self.path, **options)[3]
        return [_value(value) for value in values.tolist()]

    def within(self, bounds: Bounds) -> Shapes:
        """The outlines that meet a box, in the order of the file."""
        with _reading(self.path) as pyogrio:
            options = {"layer": self.layer, "bbox": bounds, "columns": [self.attribute], "return_fids": True}
            _, numbers, stored, (values,) = pyogrio.raw.read(self.path, **options)
        order = np.argsort(numbers, kind="stable")
        kept, notes = _areal(shapely.from_wkb(stored[order], on_invalid="ignore").tolist(), self.path, refuse=False)
        labels = [_value(value) for value in values[order].tolist()]
        outlines = np.array([geometry for geometry, _ in kept], object)
        return Shapes(outlines, [labels[i] for _, i in kept], self.system, False, notes)


Bounds: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top, in the file's coordinates


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The package that reads tables; what it raises names the file."""
    try:
        import pyogrio  # noqa: PLC0415 - an extra
        import pyogrio.raw  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(f"{path.suffix} files ({path}) need pyogrio; pip install 'foveate[vector]'") from None
    _check_first_bytes(path)
    try:
        yield pyogrio
    except DatasetError:
        raise
    except Exception as error:  # of whatever is in the file
        raise DatasetError(f"{path} cannot be read: {reason_of(error)}") from None


def _layer(pyogrio: Any, path: Path, layer: str | None) -> str:
    layers = pyogrio.list_layers(path)[:, 0].tolist()
    if layer is None and len(layers) > 1:
        raise DatasetError(f"{path} has the layers {', '.join(layers)}; choose one with data.vectors.layer")
    return layer or str(layers[0])


def _read_table(path: Path, layer: str | None) -> tuple[list[Any], list[dict[str, Any]], CRS | None]:
    with _reading(path) as pyogrio:
        meta, _, stored, columns = pyogrio.raw.read(path, layer=_layer(pyogrio, path, layer))
    names = [str(name) for name in meta["fields"]]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(c.tolist() for c in columns), strict=True)]
    geometries = shapely.from_wkb(stored, on_invalid="ignore").tolist()
    return geometries, rows or [{} for _ in geometries], CRS.from_user_input(meta["crs"]) if meta["crs"] else None


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


def _labels(properties: list[dict[str, Any]], attribute: str | None, path: Path) -> list[Any]:
    """The class of each feature; None without one."""
    keys = dict.fromkeys(key for one in properties for key in one)
    attribute = _attribute(list(keys), attribute, path) if properties else None
    return [_value(one.get(attribute)) for one in properties] if attribute else []


def _attribute(keys: Sequence[str], attribute: str | None, path: Path) -> str:
    """The property that holds the class, of those that there are."""
    if attribute is None:
        lower = {key.lower(): key for key in reversed(keys)}
        attribute = next((lower[name] for name in _ATTRIBUTES if name in lower), None)
    if attribute is None or attribute not in keys:
        named = f"no {attribute!r}" if attribute else "no property that names a class"
        raise DatasetError(
            f"the polygons in {path} have {named}; they have {', '.join(keys) or 'no properties'}. Set "
            "data.vectors.attribute to the property that holds the class"
        )
    return attribute


def _value(found: Any) -> Any:
    """A class as a text or whole number; QuPath's is a dictionary with a name."""
    if isinstance(found, Mapping):
        found = found.get("name")
    if isinstance(found, float):
        return None if np.isnan(found) else int(found) if found.is_integer() else str(found)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return None if found is None else str(found).strip() or None


def _areal(geometries: list[Any], path: Path, *, refuse: bool = True) -> tuple[list[tuple[Any, int]], tuple[str, ...]]:
    """Valid polygons with their places, and what was repaired or left out."""
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
    if geometries and not kept and refuse:
        raise DatasetError(f"{path} has no polygon with an area; {_counted(counts)}")
    return kept, tuple(f"{path.name}: {_counted(counts)}" for _ in [0] if counts)


def _counted(counts: Counter[str]) -> str:
    return "; ".join(f"{what}: {count}" for what, count in counts.items())
