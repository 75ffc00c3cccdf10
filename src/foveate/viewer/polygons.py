"""Polygons as a layer: drawn tile by tile at the scale of the tile, their borders a pixel wide."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely

from foveate.data import VectorsConfig, open_image
from foveate.data.labels.shapes import read_shapes
from foveate.data.labels.vector import in_pixels
from foveate.errors import DatasetError
from foveate.geometry import LOWER, Array, ByteArray, IntArray, Size, Window
from foveate.viewer.inputs import RasterFacts
from foveate.viewer.rendering import NO, NOT_COUNTED, YES, OpenReader, Pixels, Rendering
from foveate.viewer.scene import ClassEntry, category

BORDER = 128  # added to the code of a polygon on its border
_MOST = BORDER - 2  # classes with a code of their own; the others share the last
_OTHERS, _NO_CLASS, IGNORE = "other classes", "no class", "ignore"


class Polygons:
    """The polygons of a file.

    Args:
        geometries: (n,) in pixels of the base grid, in the order in which they are drawn.
        codes: (n,) of their classes, from 1; on its border a polygon has its code + `BORDER`.
        names: of the classes; that of code i is names[i - 1].
        notes: what was taken for granted, or left out.
    """

    def __init__(
        self, geometries: Array, codes: ByteArray, names: tuple[str, ...], notes: tuple[str, ...] = ()
    ) -> None:
        self.geometries, self.codes, self.names, self.notes = geometries, codes, names, notes
        left, top, right, bottom = shapely.bounds(geometries).reshape(-1, 4).T
        self._tree = shapely.STRtree(geometries)
        self._sides, self._centres = np.maximum(right - left, bottom - top), np.stack([left + right, top + bottom]) / 2

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> ByteArray:
        """Codes (h, w) for a `Rendering`; 0 outside all polygons."""
        return self._drawn(window, size, 2 * window.width / size.width, border=BORDER)

    def areas(self, window: Window, size: Size) -> ByteArray:
        """Codes (h, w) without borders: at full resolution a pixel has the class at its centre."""
        across = window.width / size.width
        return self._drawn(window, size, 2 * across if across > 1 else 0, border=0)

    def _drawn(self, window: Window, size: Size, least: float, border: int) -> ByteArray:
        """Polygons, those with sides below `least` as dots; borders and dots have the code of the class + `border`."""
        across, down = window.width / size.width, window.height / size.height
        # The cut through a polygon is no border of it: it must lie outside the tile.
        rim = shapely.box(
            window.left - 2 * across, window.top - 2 * down, window.right + 2 * across, window.bottom + 2 * down
        )
        near = np.sort(self._tree.query(rim))
        large = near[self._sides[near] >= least]
        parts, codes = shapely.clip_by_rect(self.geometries[large], *rim.bounds), self.codes[large]
        if across > 1:  # a border of a million corners is no finer than the pixels of the tile
            parts = shapely.simplify(parts, across / 2, preserve_topology=False)
        transform = rasterio.Affine(across, 0, window.left, 0, down, window.top + LOWER * down)
        drawn = _drawn(parts, codes, size, transform)
        if border:
            borders = _drawn(shapely.boundary(parts), codes + np.uint8(border), size, transform)
            drawn[borders > 0] = borders[borders > 0]
        self._dot(drawn, near[self._sides[near] < least], transform, border)
        return drawn

    def _dot(self, drawn: ByteArray, small: IntArray, transform: rasterio.Affine, border: int) -> None:
        """What is smaller than two pixels is one, however many there are."""
        x, y = self._centres[:, small]
        cols = np.floor((x - transform.c) / transform.a).astype(np.int64)
        rows = np.floor((y - transform.f) / transform.e).astype(np.int64)
        inside = (cols >= 0) & (rows >= 0) & (rows < drawn.shape[0]) & (cols < drawn.shape[1])
        drawn[rows[inside], cols[inside]] = self.codes[small[inside]] + np.uint8(border)

    def only(self, *names: str) -> "Polygons":
        """Those of some classes."""
        wanted = [name.casefold() for name in names]
        codes = [code for code, name in enumerate(self.names, start=1) if name.casefold() in wanted]
        mine = np.isin(self.codes, codes)
        return Polygons(self.geometries[mine], self.codes[mine], self.names)

    def legend(self, known: Sequence[ClassEntry]) -> tuple[ClassEntry, ...]:
        """Their classes, in the colours that classes of these names have elsewhere."""
        colours = {entry.name.casefold(): entry.color for entry in known}
        return tuple(
            ClassEntry(code, name, colours.get(name.casefold()) or category(code - 1))
            for code, name in enumerate(self.names, start=1)
        )


def polygon_ids(polygons: Polygons, known: Sequence[ClassEntry], outside: str | None) -> Rendering:
    """Class ids of polygons, to be compared with a prediction; `NOT_COUNTED` for what is no class.

    Args:
        polygons: their classes are found by name or number.
        known: the classes.
        outside: the class outside all polygons.
    """
    ids = {entry.name.casefold(): entry.code for entry in known} | {str(entry.code): entry.code for entry in known}
    names = (outside or "", *polygons.names)  # by code
    table = np.array([ids.get(name.casefold(), NOT_COUNTED) for name in names], np.uint8)
    return Rendering(lambda open_reader, window, size: table[polygons.areas(window, size)])


def polygon_answer(polygons: Polygons, name: str, unlabelled: str | None) -> Rendering:
    """Yes or no of one of several overlapping classes: yes in its polygons, whatever else lies there.

    Args:
        polygons: all; in those without a class nothing is counted.
        name: of the class.
        unlabelled: the class outside all polygons, or "ignore".
    """
    outside = NOT_COUNTED if unlabelled == IGNORE else YES if unlabelled == name else NO
    parts = polygons, polygons.only(name), polygons.only(_NO_CLASS, IGNORE)

    def draw(open_reader: OpenReader, window: Window, size: Size) -> Pixels:
        every, own, lost = (part.areas(window, size) > 0 for part in parts)
        answers = np.where(every, np.uint8(NO), np.uint8(outside))
        answers[own] = YES
        answers[lost] = NOT_COUNTED
        return answers

    return Rendering(draw)


def joined(files: Mapping[str, Polygons]) -> Polygons:
    """The polygons of several files, each of one class."""
    codes = [np.full(len(one.codes), code, np.uint8) for code, one in enumerate(files.values(), start=1)]
    geometries = np.concatenate([one.geometries for one in files.values()])
    order = np.argsort(-shapely.area(geometries), kind="stable")
    notes = tuple(note for one in files.values() for note in one.notes)
    return Polygons(geometries[order], np.concatenate(codes)[order], tuple(files), notes)


def _drawn(shapes: Array, codes: ByteArray, size: Size, transform: rasterio.Affine) -> ByteArray:
    wanted = [(shape, int(code)) for shape, code in zip(shapes, codes, strict=True) if shape and not shape.is_empty]
    if not wanted:
        return np.zeros((size.height, size.width), np.uint8)
    drawn: ByteArray = rasterio.features.rasterize(
        wanted, (size.height, size.width), transform=transform, dtype="uint8"
    )
    return drawn


def read_polygons(path: Path, base: RasterFacts, vectors: VectorsConfig, classes: Sequence[str] = ()) -> Polygons:
    """The polygons of a file that lie on the base grid.

    Args:
        path: GeoJSON, GeoPackage, shapefile, COCO or LabelMe.
        base: the image.
        vectors: how the file is read.
        classes: names in the order of their ids, for `vectors.order` to go by.
    """
    shapes = read_shapes(path, base.name, vectors.attribute, vectors.layer, bare=True)
    with open_image(base.path) as image:
        placed, notes = in_pixels(shapes, image, vectors.coordinates, path)
    on_image = shapely.intersects(placed, shapely.box(0, 0, base.size.width, base.size.height))
    if len(placed) and not on_image.any():
        raise DatasetError(
            f"none of the {len(placed)} polygons in {path} lies on {base.place}; show them with their image, or move "
            "the file elsewhere"
        )
    labels = [_name(label, vectors) for label in shapes.labels] or [_NO_CLASS] * len(placed)
    names = sorted(set(labels))
    drawn = _drawing_order(placed, labels, vectors.order, classes)
    order = drawn[on_image[drawn]]
    codes = np.array([min(names.index(labels[i]), _MOST) + 1 for i in order], np.uint8)
    return Polygons(placed[order], codes, (*names[:_MOST], *[_OTHERS][: len(names) > _MOST]), (*shapes.notes, *notes))


def _drawing_order(placed: Array, labels: Sequence[str], order: str, classes: Sequence[str]) -> IntArray:
    """As labels are read for training: the last lies on top."""
    if order == "smallest":
        return np.argsort(-shapely.area(placed), kind="stable")
    if order == "classes":
        known = [name.casefold() for name in classes]
        ids = [known.index(name.casefold()) if name.casefold() in known else -1 for name in labels]
        return np.argsort(ids, kind="stable")
    return np.arange(len(placed))


def _name(label: Any, vectors: VectorsConfig) -> str:
    if label is None:
        return _NO_CLASS
    return (vectors.classes or {}).get(str(label), str(label))
