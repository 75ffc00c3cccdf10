"""`VectorLabels`: class ids drawn from polygons, window by window."""

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rasterio.features
import rasterio.warp
import shapely

from foveate.data.config import DataConfig
from foveate.data.labels.shapes import TABLES, Bounds, Shapes, Table, read_shapes
from foveate.data.place import MIRRORED, counts_down, pixel_transform
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ConfigError, DatasetError, translated
from foveate.geometry import IGNORE, LOWER, Array, BoolArray, ByteArray, Coordinates, IntArray, LabelArray

# Drawn at once, at the same places whatever is asked for, so that a centre on a border is always in or always out.
_TILE = 512
_TILES_KEPT = 64
MOST_KEPT = 20_000  # outlines; of more in a table those near a tile are read when it is drawn
_IGNORE = "ignore"


class VectorLabels:
    """The polygons of a file on the grid of an image: each pixel has the class of the uppermost polygon at its centre.

    Of overlapping classes it has those of all polygons there. Polygons without a class are not counted: their pixels
    are `ignore_index`. Only the name, size and place of the image are asked for.
    """

    def __init__(self, path: Path, image: ImageReader, config: DataConfig) -> None:
        self.location, self.size, self.membership = str(path), image.size, config.membership
        self.rasters: tuple[()] = ()
        self._unlabelled, self._order = _unlabelled(config), config.vectors.order
        table = _large_table(path, image, config)
        self._outlines = _Kept(path, image, config) if table is None else _ReadNear(table, image, config)
        self.notes = self._outlines.notes
        self._tile = lru_cache(_TILES_KEPT)(self._drawn)

    def ids(self, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        """Labels at the crossings of some rows and columns of the image.

        Args:
            rows: (n,) ascending, inside the image.
            cols: (m,) ascending, inside the image.
            counted: (n, m) which of them count; elsewhere no label is an error.

        Returns:
            (n, m), of the membership's type, its `ignore_index` where nothing is labelled. Where it is not counted, the
            class is still said.
        """
        result = np.empty((len(rows), len(cols)), self.membership.dtype)
        for (top, some), (left, others) in product(_by_tile(rows), _by_tile(cols)):
            drawn = self._tile(top, left)
            result[some, others] = drawn[np.ix_(rows[some] - top, cols[others] - left)]
        return result

    def _drawn(self, top: int, left: int) -> LabelArray:
        tile = shapely.box(left - 1, top - 1, left + _TILE + 1, top + _TILE + 1)
        geometries, ids = self._outlines.near(*tile.bounds)
        order = _drawing_order(geometries, ids, self._order)
        # An outline of a million corners is drawn where it is needed only.
        parts = shapely.clip_by_rect(geometries[order], *tile.bounds)
        shapes = [(part, int(label)) for part, label in zip(parts, ids[order], strict=True) if not part.is_empty]
        draw = partial(
            rasterio.features.rasterize,
            out_shape=(_TILE, _TILE),
            transform=rasterio.Affine(1, 0, left, 0, 1, top + LOWER),
            dtype="uint8",
        )
        result: LabelArray = np.full((_TILE, _TILE), self._unlabelled, self.membership.dtype)
        if not shapes:
            return result
        return self._sets(shapes, draw, result) if self.membership.overlapping else draw(shapes, fill=self._unlabelled)

    def _sets(self, shapes: list[tuple[Any, int]], draw: Callable[..., LabelArray], result: LabelArray) -> LabelArray:
        """The classes of all polygons at each pixel, in place of those of what is outside all."""
        masks = {
            label: draw([(part, 1) for part, other in shapes if other == label]) > 0 for label in {i for _, i in shapes}
        }
        ignored = masks.pop(IGNORE, np.zeros(result.shape, np.bool_))
        result[np.any([ignored, *masks.values()], axis=0)] = 0
        for label, mask in masks.items():
            result |= mask.astype(result.dtype) << label
        result[ignored] = self.membership.ignore_index
        return result


def _unlabelled(config: DataConfig) -> int:
    """The label of what is outside all polygons."""
    name = config.vectors.unlabelled
    if not config.overlapping:
        return 0 if name is None else id_of(name, config)
    return 0 if name is None else config.membership.ignore_index if name == _IGNORE else 1 << id_of(name, config)


class _Kept:
    """All polygons of an image, in memory, in its pixels."""

    def __init__(self, path: Path, image: ImageReader, config: DataConfig) -> None:
        vectors = config.vectors
        shapes = read_shapes(path, image.path.name, vectors.attribute, vectors.layer)
        ids = class_ids(shapes.labels, config, path)
        placed, notes = in_pixels(shapes, image, vectors.coordinates, path)
        on_image = shapely.intersects(placed, shapely.box(0, 0, image.size.width, image.size.height))
        if len(placed) and not on_image.any():
            left, top, right, bottom = shapely.total_bounds(placed)
            raise DatasetError(
                f"none of the {len(placed)} polygons in {path} lies on its image {image.location}: they span columns "
                f"{left:.0f} to {right:.0f} and rows {top:.0f} to {bottom:.0f}, and the image has {image.size.width} x "
                f"{image.size.height} pixels. Set data.vectors.coordinates to pixels, crs or lonlat"
            )
        self._geometries, self._ids = placed[on_image], ids[on_image]
        self._tree = shapely.STRtree(self._geometries)
        self.notes: tuple[str, ...] = (*shapes.notes, *notes, *_counted(ids[on_image], len(ids), config, path))

    def near(self, left: float, top: float, right: float, bottom: float) -> tuple[Array, ByteArray]:
        """Those that may meet a box, and their class ids, in the order of the file."""
        chosen = np.sort(self._tree.query(shapely.box(left, top, right, bottom)))
        return self._geometries[chosen], self._ids[chosen]


class _ReadNear:
    """Those of a large table, read from the file where they are needed."""

    def __init__(self, table: Table, image: ImageReader, config: DataConfig) -> None:
        self._table, self._config = table, config
        # An open image would be kept, with all that it decoded.
        self._image: Any = SimpleNamespace(
            size=image.size, stored_size=image.stored_size, georeference=image.georeference, location=image.location
        )
        labels = table.labels(self._bounds(0, 0, image.size.width, image.size.height))
        if not labels:
            raise DatasetError(
                f"none of the {table.features} polygons in {table.path} lies on its image {image.location}; is it in "
                f"the right coordinate reference system? See data.vectors.coordinates"
            )
        ids = class_ids(labels, config, table.path)
        # By boxes in the file's system, which reach a little over the image in its own.
        self.notes: tuple[str, ...] = _counted(ids, table.features, config, table.path, about="about ")

    def near(self, left: float, top: float, right: float, bottom: float) -> tuple[Array, ByteArray]:
        """By the spatial index of the file."""
        shapes = self._table.within(self._bounds(left, top, right, bottom))
        placed, _ = in_pixels(shapes, self._image, "crs", self._table.path)
        return placed, class_ids(shapes.labels, self._config, self._table.path)

    def _bounds(self, left: float, top: float, right: float, bottom: float) -> Bounds:
        """A box of pixels as one in the file's coordinates that holds it."""
        a, b, c, d, e, f = self._image.georeference.transform
        cols, rows = np.array([left, right, left, right]), np.array([top, top, bottom, bottom])
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        own = rasterio.CRS.from_wkt(self._image.georeference.crs)
        corners = (x.min(), y.min(), x.max(), y.max())
        found = rasterio.warp.transform_bounds(own, self._table.system or own, *corners, densify_pts=21)
        west, south, east, north = map(float, found)
        return west, south, east, north


def _large_table(path: Path, image: ImageReader, config: DataConfig) -> Table | None:
    """The table of an image on the ground, where it has too many outlines to keep; else None."""
    on_ground = image.georeference is not None and bool(image.georeference.crs)
    vectors = config.vectors
    if path.suffix.lower() not in TABLES or not on_ground or vectors.coordinates not in ("auto", "crs"):
        return None
    table = Table.of(path, vectors.layer, vectors.attribute)
    return table if table.features > MOST_KEPT else None


def _by_tile(positions: IntArray) -> list[tuple[int, slice]]:
    """The first position of each tile, and which of ascending positions lie in it."""
    tiles = positions // _TILE
    starts = np.flatnonzero(np.diff(tiles, prepend=tiles[0] - 1))
    ends = [*starts[1:].tolist(), len(positions)]
    return [(int(tiles[i]) * _TILE, slice(int(i), end)) for i, end in zip(starts, ends, strict=True)]


def in_pixels(
    shapes: Shapes, image: ImageReader, coordinates: Coordinates, path: Path
) -> tuple[Array, tuple[str, ...]]:
    """Geometries in pixels of an image at its working resolution, and what was taken for granted."""
    if not len(shapes.geometries):
        return shapes.geometries, ()
    corners = [np.reshape(row, (2, 2)) for row in shapely.bounds(shapes.geometries)]
    if shapes.in_pixels:
        coordinates = "pixels"
    elif coordinates == "auto":
        on_ground = image.georeference is not None and bool(image.georeference.crs)
        coordinates = "pixels" if not on_ground else "crs" if path.suffix.lower() in TABLES else "auto"
    try:
        to_pixels = pixel_transform(shapes.system, corners, image, coordinates, path, hint="data.vectors.coordinates")
    except ConfigError as error:
        raise DatasetError(str(error)) from None
    with translated(DatasetError, f"the coordinates in {path} cannot be converted to pixels of {image.location}"):
        placed = shapely.transform(shapes.geometries, to_pixels)
    _, low, _, high = shapely.total_bounds(placed)
    if counts_down(np.array([low, high]), image, coordinates):
        return shapely.transform(placed, lambda points: points * (1, -1)), (MIRRORED.format(path.name),)
    return placed, ()


def class_ids(labels: list[Any], config: DataConfig, path: Path) -> ByteArray:
    """The class id of each label, `ignore_index` for none.

    Raises:
        DatasetError: naming the labels that are no class.
    """
    known = {label: _known(label, config) for label in set(labels)}
    wrong = sorted(str(label) for label, found in known.items() if found is None)
    if wrong:
        last, there = config.class_names[-1], ", ".join(config.class_names)
        raise DatasetError(
            f"{path} has polygons of {', '.join(map(repr, wrong))}; the classes are {there}. Add classes, or say what "
            f"they mean with data.vectors.classes={{{wrong[0]}: {last}}} or {{{wrong[0]}: ignore}}"
        )
    return np.array([known[label] for label in labels], np.uint8)


def _known(label: Any, config: DataConfig) -> int | None:
    if label is None:
        return IGNORE
    named = config.vectors.classes or {}
    if str(label) in named:
        return id_of(named[str(label)], config)
    names = [name.casefold() for name in config.class_names]
    if str(label).casefold() in names:
        return names.index(str(label).casefold())
    number = int(label) if str(label).isdigit() else -1
    return number if 0 <= number < len(names) else None


def id_of(name: str, config: DataConfig) -> int:
    """The id of a class by name, or `ignore_index` for "ignore"."""
    return IGNORE if name == _IGNORE else config.class_names.index(name)


def _drawing_order(geometries: Array, ids: ByteArray, order: str) -> IntArray:
    """Which is drawn after which; the last lies on top."""
    if order == "classes":
        return np.argsort(ids, kind="stable")
    return np.argsort(-shapely.area(geometries), kind="stable") if order == "smallest" else np.arange(len(ids))


def _counted(ids: ByteArray, total: int, config: DataConfig, path: Path, about: str = "") -> tuple[str, ...]:
    """What is said of the polygons on the image, of so many in all."""
    off, bare = total - len(ids), int((ids == IGNORE).sum())
    notes = []
    if off:
        notes.append(f"{path.name}: {about}{off} of {total} polygons lie outside the image")
    if bare:
        notes.append(f"{path.name}: {bare} of {total} polygons have no class or are ignored; they do not count")
    return tuple(notes)
