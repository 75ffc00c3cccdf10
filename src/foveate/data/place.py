"""Where things lie: the pixels of an image in its mask, and the corners of polygons in the pixels of an image."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import rasterio
from rasterio.warp import transform as warp

from foveate.data.readers.derived import size_at
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import ConfigError, DatasetError, reason_of
from foveate.geometry import Array, Coordinates, DoubleArray, Georeference, IntArray, Size

# A centre on the border of two pixels of the mask takes the lower or right one, whatever the last digit of a float.
_EDGE = 1e-6
# Corners that lie this close, in pixels of the mask, are the same.
_SAME = 0.01
# Between points whose place is computed others are interpolated: over 16 pixels a projection is as good as flat.
_LATTICE = 16
_FAR = 2**40
_LONLAT = "OGC:CRS84"
MIRRORED = "{}: the rows are negative, as in files from QGIS, and were mirrored"
Ring = DoubleArray  # (n, 2) columns and rows, level-0 pixels; pixel i reaches from i to i + 1


class Positions(NamedTuple):
    """Rows and columns of the mask under pixels of the image, (n, 1) and (1, m) or both (n, m); may lie outside."""

    rows: IntArray
    cols: IntArray


class Stretched(NamedTuple):
    """Image and mask show the same rectangle, each with pixels of its own; whole numbers only."""

    image: Size  # size of the image
    mask: Size  # size of the mask
    note: str = ""  # what was taken for granted; empty for nothing

    def positions(self, rows: IntArray, cols: IntArray) -> Positions:
        """Of the crossings of ascending rows (n,) and columns (m,) of the image: the pixels under the centres."""
        return Positions(
            ((2 * rows + 1) * self.mask.height // (2 * self.image.height))[:, None],
            ((2 * cols + 1) * self.mask.width // (2 * self.image.width))[None],
        )


class OnGround:
    """Image and mask lie on the ground, in one coordinate reference system or in two.

    Without a system of its own the one is in that of the other. The `note` says what of the image the mask leaves out.
    """

    def __init__(self, image: Georeference, mask: Georeference) -> None:
        self.note = ""
        self._own, self._mask = rasterio.Affine(*image.transform), ~rasterio.Affine(*mask.transform)
        self._systems = first, second = system_of(image), system_of(mask)
        self._is_warped = first is not None and second is not None and first != second
        # From points (x, y) of the image to points of the mask, within one system.
        own, inverse = self._own, self._mask
        c, f = _applied(inverse, own.c, own.f)
        (a, d), (b, e) = (_applied(inverse, *step, shift=0) for step in ((own.a, own.d), (own.b, own.e)))
        self._direct = rasterio.Affine(a, b, c, d, e, f)

    def positions(self, rows: IntArray, cols: IntArray) -> Positions:
        """The pixels under the centres."""
        y, x = (rows + 0.5)[:, None], (cols + 0.5)[None]
        if self._is_warped:
            row, col = self._interpolated(y[:, 0], x[0])
        elif self._direct.b == self._direct.d == 0:  # rows stay rows
            row, col = self._direct.e * y + self._direct.f, self._direct.a * x + self._direct.c
        else:
            row, col = self.points(y, x)
        return Positions(_whole(row), _whole(col))

    def points(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Rows and columns of the mask at points of the image, of one shape; infinite where a system has none.

        Raises:
            DatasetError: when there is no way from one system to the other.
        """
        if not self._is_warped:
            col, row = _applied(self._direct, x, y)
            return row, col
        east, north = _applied(self._own, x, y)
        try:
            moved = warp(*self._systems, east.ravel(), north.ravel())
        except rasterio.errors.RasterioError as error:
            raise DatasetError(
                f"the georeference of an image cannot be converted to that of its mask: {error}"
            ) from None
        east, north = (np.reshape(values, east.shape) for values in moved)
        col, row = _applied(self._mask, east, north)
        return row, col

    def _interpolated(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Bilinear between the points of a lattice."""
        (above, i, u), (before, j, v) = _lattice(y), _lattice(x)
        known = self.points(*np.meshgrid(above, before, indexing="ij"))
        with np.errstate(invalid="ignore"):  # next to where a system has no point there is none
            lines = [values[i] * (1 - u[:, None]) + values[i + 1] * u[:, None] for values in known]
            row, col = (line[:, j] * (1 - v) + line[:, j + 1] * v for line in lines)
        return row, col


def _lattice(points: Array) -> tuple[Array, IntArray, Array]:
    """Some of ascending points, and of all the one before and the share of the way to the next."""
    spacing = max(1.0, (points[-1] - points[0]) / max(1, len(points) - 1))
    nodes = np.append(points[:: max(1, int(_LATTICE / spacing))], points[-1] + 1)
    before = np.searchsorted(nodes, points, side="right") - 1
    return nodes, before, (points - nodes[before]) / (nodes[before + 1] - nodes[before])


def _applied(transform: Any, x: Any, y: Any, shift: int = 1) -> tuple[Any, Any]:
    """A point (x, y), or arrays of them, moved; without the shift a step."""
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + shift * c, d * x + e * y + shift * f


def _whole(values: Array) -> IntArray:
    known = np.where(np.isfinite(values), values, -_FAR).clip(-_FAR, _FAR)
    return np.floor(known + _EDGE).astype(np.int64)


def system_of(place: Georeference | None) -> Any:
    """The coordinate reference system of a place; None where it names none.

    Raises:
        DatasetError: when it is not known.
    """
    try:
        return rasterio.CRS.from_wkt(place.crs) if place is not None and place.crs else None
    except rasterio.errors.CRSError as error:
        raise DatasetError(f"unknown coordinate reference system: {error}") from None


Placement: TypeAlias = Stretched | OnGround


def placement_of(image: ImageReader, mask: ImageReader) -> Placement:
    """How a mask lies on its image: by their places on the ground where both have one, else pixel by pixel.

    Where neither is of the other's size nor both have a place, they may still be the same rectangle by the sizes of
    their pixels. The image is at the working resolution, the mask as stored.

    Raises:
        DatasetError: naming both files and their places, or sizes, when they do not meet.
    """
    ours, theirs = _ground(image), _ground(mask)
    if ours is not None and theirs is not None:
        return _on_ground(image, mask, OnGround(ours, theirs))
    if mask.size == image.stored_size:
        known = "image" if ours is not None else "mask"
        alone = ours is not None or theirs is not None
        note = f"only the {known} has a georeference; image and mask are matched pixel by pixel"
        return Stretched(image.size, mask.size, note if alone else "")
    shown = mask.size
    if mask.resolution is not None and image.resolution is not None:  # in pixels of the image
        shown = size_at(mask, mask.resolution, image.resolution.row)
    # Each was rounded to whole pixels, in a grid of its own.
    sides = ((shown.height, image.size.height), (shown.width, image.size.width))
    if mask.resolution is not None and all(abs(own - other) <= 1 + 0.01 * other for own, other in sides):
        return Stretched(image.size, mask.size)
    lost = [kind for kind, place in (("image", ours), ("mask", theirs)) if place is None]
    raise DatasetError(
        f"the image {image.location} is {image.size.height} x {image.size.width} pixels and its mask {mask.location} "
        f"is {shown.height} x {shown.width}. Give them the same size, or give both a georeference (missing in the "
        f"{' and the '.join(lost)}) or a pixel size"
    )


def _ground(reader: ImageReader) -> Georeference | None:
    """The place of an image, None when it has none worth the name: a system alone says nothing."""
    place = reader.georeference
    if (
        place is None
        or rasterio.Affine(*place.transform).is_identity
        or rasterio.Affine(*place.transform).is_degenerate
    ):
        return None
    return place


def _on_ground(image: ImageReader, mask: ImageReader, placement: OnGround) -> Placement:
    # Points over the image, its corners among them.
    y, x = np.linspace(0, image.size.height, 33), np.linspace(0, image.size.width, 33)
    rows, cols = placement.points(*np.meshgrid(y, x, indexing="ij"))
    corners, size = np.ix_([0, -1], [0, -1]), mask.size
    apart = abs(rows[corners] - [[0, 0], [size.height] * 2]), abs(cols[corners] - [[0, size.width]] * 2)
    if np.max(apart) < _SAME:
        return Stretched(image.size, mask.size)
    inside = (rows >= 0) & (rows <= mask.size.height) & (cols >= 0) & (cols <= mask.size.width)
    if not inside.any() and not _meet(rows, cols, mask.size):
        raise DatasetError(
            f"the mask {mask.location} does not overlap its image {image.location}: the image spans {_span(image)} and "
            f"the mask {_span(mask)}. Correct one georeference, or remove it to match them pixel by pixel"
        )
    share = float(inside.mean())
    placement.note = f"the mask covers {share:.0%} of its image" if share < 0.995 else ""
    return placement


def _meet(rows: Array, cols: Array, size: Size) -> bool:
    """Whether the rectangle around points of the image meets the mask, which may lie between the points."""
    known = np.isfinite(rows) & np.isfinite(cols)
    if not known.any():
        return False
    rows, cols = rows[known], cols[known]
    return bool(rows.min() < size.height and rows.max() > 0 and cols.min() < size.width and cols.max() > 0)


def _span(reader: ImageReader) -> str:
    """The rectangle of an image on the ground, and its system."""
    place = reader.georeference
    assert place is not None
    y, x = np.array([0, 0, 1, 1]) * reader.size.height, np.array([0, 1, 0, 1]) * reader.size.width
    east, north = _applied(rasterio.Affine(*place.transform), x, y)
    system = system_of(place)
    name = system.to_string() if system is not None and len(system.to_string()) < 40 else "its own system"
    return f"{east.min():.10g} to {east.max():.10g}, {north.min():.10g} to {north.max():.10g} in {name}"


def pixel_transform(
    named: rasterio.CRS | None,
    rings: list[Ring],
    image: ImageReader,
    coordinates: Coordinates,
    path: Path,
    hint: str = "--roi-coordinates",
) -> Callable[[Ring], Ring]:
    """From coordinates (n, 2) of a file to columns and rows of an image at its working resolution.

    `named` is the system that the file names, `rings` are points of it, by which "auto" decides, see `load_region`, and
    `hint` is the option that says which coordinates these are.

    Raises:
        ConfigError: when coordinates on Earth are given and the image has no place there.
    """
    place = image.georeference
    own = system_of(place)
    coordinates = _meant(named, rings, own, coordinates)
    if coordinates == "pixels":
        rows, cols = image.size.height / image.stored_size.height, image.size.width / image.stored_size.width
        return partial(np.multiply, (cols, rows))
    if place is None or own is None:
        raise ConfigError(
            f"{path} has coordinates on Earth, but {image.location} has no georeference; give polygons in its pixels, "
            f"with {hint} pixels"
        )
    source: Any = _LONLAT if coordinates == "lonlat" else named or own
    a, b, c, d, e, f = place.transform
    inverse = np.linalg.inv([[a, b], [d, e]])

    def to_pixels(ring: Ring) -> Ring:
        x, y = ring.T if source == own else map(np.asarray, warp(source, own, *ring.T))
        pixels: Ring = np.stack([x - c, y - f], axis=1) @ inverse.T
        return pixels

    return to_pixels


def _meant(named: rasterio.CRS | None, rings: list[Ring], own: Any, coordinates: Coordinates) -> Coordinates:
    """Which coordinates "auto" stands for."""
    if coordinates != "auto":
        return coordinates
    may_be_degrees = own is not None and any((np.abs(ring) <= (180, 90)).all() for ring in rings)
    return "crs" if named is not None else "lonlat" if may_be_degrees else "pixels"


def outlines_on(
    image: ImageReader, outlines: list[tuple[Ring, ...]], named: Any, coordinates: Coordinates, path: Path
) -> tuple[list[tuple[Ring, ...]], str]:
    """Outlines in columns and rows of an image, and what was taken for granted; see `pixel_transform`, also errors."""
    outer, own = [rings[0] for rings in outlines], system_of(image.georeference)
    to_pixels, meant = pixel_transform(named, outer, image, coordinates, path), _meant(named, outer, own, coordinates)
    placed = [tuple(to_pixels(ring) for ring in rings) for rings in outlines]
    if counts_down(np.concatenate([rings[0][:, 1] for rings in placed]), image, meant):
        return [tuple(ring * (1, -1) for ring in rings) for rings in placed], MIRRORED.format(path.name)
    guessed = coordinates == "auto" and named is None and own is not None
    taken = "pixels of the image" if meant == "pixels" else "longitude and latitude"
    said = f"{path.name} names no coordinate system: taken as {taken}; see --roi-coordinates"
    return placed, said if guessed else ""


def counts_down(rows: Array, image: ImageReader, coordinates: Coordinates) -> bool:
    """Whether rows are counted downwards from 0, as QGIS does in an image without a place on the ground."""
    in_pixels = image.georeference is None or coordinates == "pixels"
    return in_pixels and bool(rows.max() <= 0 and rows.min() >= -image.size.height)


def named_system(tree: Any, path: Path) -> rasterio.CRS | None:
    """The system of the older GeoJSON's member `crs`; None without one.

    Raises:
        ConfigError: when it is not known.
    """
    member = tree.get("crs") if isinstance(tree, dict) else None
    if not member:
        return None
    try:
        return _system_named(str(member["properties"]["name"]))
    except (rasterio.errors.CRSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} names an unknown coordinate reference system: {str(member)[:100]} ({reason_of(error)})"
        ) from None


def _system_named(name: str) -> rasterio.CRS:
    """A system by its WKT or its name in a register: GDAL itself also follows addresses, and reads files."""
    if re.match(r"\s*[A-Z_]{4,}\s*\[", name):
        return rasterio.CRS.from_wkt(name)
    known = re.fullmatch(r"(?:https?://www\.opengis\.net/def/crs/)(\w+)/[\w.]+/(\w+)", name)
    name = f"{known[1]}:{known[2]}" if known else name
    if not re.fullmatch(r"\w+(:[\w.]*)+", name):
        raise ValueError("it is not a name such as EPSG:32633")
    return rasterio.CRS.from_user_input(name)
