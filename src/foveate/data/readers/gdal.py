"""What GDAL says of a file: opened safely, its header, where it lies and how large its pixels are on the ground."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.warp import transform as warp

from foveate.data.readers._gdal_checks import check_opened, drivers_for
from foveate.data.readers.base import Address, OpenOptions, damage_said, first_bytes, redacted, representable
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import FoveateError, ImageReadError, UnsupportedImageError, reason_of
from foveate.geometry import BoolArray, DoubleArray, Georeference, Raster, Resolution, Size, Window
from foveate.texts import METRES
from foveate.tiff.raster import TiffSource, quiet

# Nobody asks a server for the list of its folder, nor for each of the files that may lie beside an image.
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
# Whatever the environment says: no image runs programs, and no VRT reads raw bytes of other files.
_SAFE = {"GDAL_VRT_ENABLE_PYTHON": "NO", "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO"}
# They decode from the first row on: reading part of a row and coming back would decode it all again.
BY_ROWS = ("PNG", "JPEG")
# WGS 84: semi-major axis in metres, and the square of the eccentricity.
_AXIS, _ECCENTRICITY = 6378137.0, 0.0066943799901413165
_LATTICE, _RIGHT = 33, 0.01
# Cameras and editors write the size of a print, 72 to 600 pixels per inch; a tag is believed from here on.
_LARGEST = 0.0254 / 1000
_MEASURED, _ALIKE = 0.005, 1.1
_SPREAD = np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])  # corners, sides and the centre of an image
_UNITS, _IMAGEJ = {"2": 0.0254, "3": 0.01}, {"micron": "um", "\\u00B5m": "um"}
_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)")
_OME = 'PhysicalSize{}="([^"]+)"'
# Ground control points make a place where an affine map fits them to a pixel.
_FEWEST_POINTS, _MOST_APART = 3, 1.0


def open_dataset(path: Path | str | Address, mode: str = "r", **options: Any) -> Any:
    """A rasterio dataset of a file, a URL or a GDAL virtual path; to read, only the drivers of `drivers_for` are asked.

    Raises:
        ImageReadError: when a server has no such file, or does not answer.
        UnsupportedImageError: when GDAL cannot or must not open the file.
    """
    location = Address.of(path)
    try:
        with _safe(location.is_remote):
            return _opened(location, options) if mode == "r" else rasterio.open(location.gdal, mode, **options)
    except rasterio.errors.RasterioError as error:
        reason = redacted(str(error))
        signs = ("HTTP response code", "does not exist", "resolve host", "connect to")
        if location.is_remote and any(sign in reason for sign in signs):
            raise ImageReadError(f"no image at {location}: {reason}") from None
        head = first_bytes(location.path, 24).lstrip() if location.is_local and location.path.is_file() else b""
        more = f" (it is text: {head.decode(errors='replace')}...)" if head.startswith((b"<", b"{")) else ""
        if head.startswith((b"\x89HDF", b"CDF")):
            more = " It is HDF5 or netCDF: run gdal_translate, or name GDAL's driver in FOVEATE_GDAL_DRIVERS"
        raise UnsupportedImageError(f"GDAL cannot open {location}: {reason}{more}") from None


def open_made(text: str, driver: str, *, remote: bool = True, **options: Any) -> Any:
    """A rasterio dataset of what was looked at before: a VRT made here, a page or an overview of an open file."""
    with _safe(remote):
        return _open(text, driver=[driver], **options)


def _safe(remote: bool) -> Any:
    quiet()
    return rasterio.Env(**_SAFE, **(_REMOTE if remote else {}))


def _opened(location: Address, options: dict[str, Any]) -> Any:
    dataset = _open(location.gdal, driver=drivers_for(location), **options)
    try:
        check_opened(dataset, location)
    except BaseException:
        dataset.close()
        raise
    return dataset


@rasterio.env.ensure_env_with_credentials  # type: ignore[untyped-decorator]  # rasterio has no types
def _open(path: str, **options: Any) -> Any:
    return rasterio.io.DatasetReader(path, **options)  # `rasterio.open` takes one driver only


@contextmanager
def reading(path: Path | str, window: Window | None = None) -> Iterator[None]:
    """Turn GDAL's errors into `ImageReadError` naming the file and the window.

    By default libjpeg only warns about a truncated file or tile, and GDAL's fast way of decoding a whole PNG does not
    even do that: both return what is missing as grey or zero. PNG and JPEG must be opened within this context too.
    """
    damage_said()  # before
    try:
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True, GDAL_PNG_WHOLE_IMAGE_OPTIM=False, **_SAFE):
            yield
    except FoveateError:
        raise
    except Exception as error:  # GDAL's own, and what is raised about metadata of any content
        raise _damaged(path, window, redacted(reason_of(error.__cause__ or error))) from error
    if damage := damage_said():
        raise _damaged(path, window, damage)


def _damaged(path: Path | str, window: Window | None, reason: str) -> ImageReadError:
    place = f" at {window}" if window else ""
    return ImageReadError(f"could not read {path}{place}: {reason}; the file is damaged or incomplete")


class GdalReader(ImageReader):
    """What a reader says of a file that GDAL reads."""

    _location: Address

    def _describe(self, dataset: Any, options: OpenOptions) -> None:
        """Set what the header of an open dataset says; refuse one without bands of real numbers."""
        colours, keep_alpha = dataset.colorinterp, options.keep_alpha or options.bands is not None
        dtype = np.result_type(*dataset.dtypes) if dataset.dtypes else np.dtype(np.complex64)
        indexes = [i + 1 for i, colour in enumerate(colours) if keep_alpha or colour != ColorInterp.alpha]
        if not indexes or dtype.kind == "c":
            found = ", ".join(dataset.dtypes) or "none"
            raise UnsupportedImageError(f"{dataset.name} has no band of real numbers (bands: {found})")
        self._indexes, self.bands, self.dtype = indexes, len(indexes), dtype
        self.format, self.size = dataset.driver, Size(*dataset.shape)
        self.alpha, self.palette = ColorInterp.alpha in colours, ColorInterp.palette in colours
        self._by_mask = options.use_nodata and _by_mask(dataset, options.bands or ())
        said = dataset.nodatavals if options.use_nodata else (None,) * dataset.count
        self.nodata = tuple(representable(said[index - 1], dtype) for index in indexes)
        self.masked = self._by_mask or any(self.nodata) or dtype.kind == "f"
        self.band_names = tuple(_band_name(dataset, index) for index in indexes)
        self.scaling = tuple((dataset.scales[index - 1], dataset.offsets[index - 1]) for index in indexes)
        self.georeference, self.remarks = georeference_of(dataset)
        self.resolution = resolution_of(dataset, self.georeference)

    def _pixels(self, dataset: Any, bands: Sequence[int], window: Window) -> Raster:
        with reading(self.location, window):
            pixels: Raster = dataset.read(bands, window=window.ranges, out_dtype=self.dtype)
        return pixels

    def source(self, dataset: Any) -> TiffSource:
        """All that the file holds, opened anew or not: bands, colours, mask, place. It stays open as long as needed."""
        flags = dataset.mask_flag_enums[0]
        masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        return TiffSource(
            self.size, dataset.count, self.dtype, partial(self._pixels, dataset, dataset.indexes),
            by_rows=dataset.driver in BY_ROWS, valid=partial(read_valid, dataset) if masked else None,
            nodata=dataset.nodata, georeference=self.georeference, resolution=self.resolution,
            codes=ColorInterp.palette in dataset.colorinterp or "class_0" in dataset.tags(),  # see foveate.writers
            describe=partial(_copy_colours, dataset),
        )  # fmt: skip


def _by_mask(dataset: Any, used: Sequence[int]) -> bool:
    """Whether a mask or an alpha band says where there is data; one that is used as pixels does not."""
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    alphas = [i + 1 for i, colour in enumerate(dataset.colorinterp) if colour == ColorInterp.alpha]
    if MaskFlags.alpha in flags and set(alphas) & set(used):
        return False
    return MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags


def _band_name(dataset: Any, index: int) -> str:
    """The band's description, else what colour it is."""
    colour = dataset.colorinterp[index - 1]
    unsaid = (ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette)
    return dataset.descriptions[index - 1] or ("" if colour in unsaid else colour.name)


def read_valid(dataset: Any, window: Window | None = None) -> BoolArray:
    """Whether pixels hold data, (h, w), by a mask or an alpha band."""
    valid: BoolArray = dataset.dataset_mask(window=window and window.ranges) > 0
    return valid


def _copy_colours(image: Any, output: Any) -> None:
    output.descriptions = image.descriptions
    output.scales, output.offsets = image.scales, image.offsets
    if image.colorinterp[0] == ColorInterp.palette:
        output.write_colormap(1, image.colormap(1))
    elif image.count > 1:
        output.colorinterp = image.colorinterp


def georeference_of(dataset: Any) -> tuple[Georeference | None, tuple[str, ...]]:
    """Where an image lies, and what is to be said of that."""
    if dataset.crs is None and dataset.transform.is_identity:
        points, crs = dataset.gcps
        if len(points) >= _FEWEST_POINTS:
            return _fitted(points, crs)
        rpcs = "its georeference consists of RPCs, which Foveate does not use; rectify it with gdalwarp -rpc to keep it"
        return None, () if dataset.rpcs is None else (rpcs,)
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Georeference(dataset.crs.to_wkt() if dataset.crs else "", (a, b, c, d, e, f)), ()


def _fitted(points: Sequence[Any], crs: Any) -> tuple[Georeference | None, tuple[str, ...]]:
    """The affine place that fits ground control points best, where it does."""
    pixels = np.array([[point.col, point.row, 1] for point in points])
    ground = np.array([[point.x, point.y] for point in points])
    origin = ground.mean(axis=0)  # for the digits
    found, _, rank, _ = np.linalg.lstsq(pixels, ground - origin, rcond=None)
    if rank < 3:
        return None, (f"its {len(points)} ground control points lie on one line, so it has no georeference",)
    apart = (pixels @ found - (ground - origin)) @ np.linalg.pinv(found[:2])
    worst = float(np.hypot(*apart.T).max())
    if worst > _MOST_APART:
        return None, (
            f"its {len(points)} ground control points are up to {worst:.1f} pixels off any flat grid, so they are not "
            "used; rectify it with gdalwarp to keep its georeference",
        )
    found[2] += origin
    (a, d), (b, e), (c, f) = found.tolist()
    said = f"its georeference is fitted to {len(points)} ground control points, at most {worst:.2f} pixels off"
    return Georeference(crs.to_wkt() if crs else "", (a, b, c, d, e, f)), (said,)


def pixel_sides(crs: rasterio.CRS, transform: Sequence[float], rows: DoubleArray, cols: DoubleArray) -> DoubleArray:
    """(3, n) height and width in metres and area in square metres of pixels at places, NaN where not on Earth."""
    centre = np.array([cols, rows], np.float64)
    # A pixel is small: around it the Earth is flat and the projection is linear.
    steps = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]).T
    a, b, c, d, e, f = transform
    x, y = np.array([[a, b], [d, e]]) @ (centre[:, None, :] + steps[:, :, None]).reshape(2, -1) + [[c], [f]]
    try:
        lon, lat = (np.array(part).reshape(4, -1) for part in warp(crs, "EPSG:4326", x, y))
    except (rasterio.errors.CRSError, rasterio.errors.RasterioError):
        return np.full((3, centre.shape[1]), math.nan)
    # Metres east and north of the first of each four.
    middle = np.radians(lat[:1])
    bend = 1 - _ECCENTRICITY * np.sin(middle) ** 2
    around = (np.radians(lon - lon[:1]) + math.pi) % (2 * math.pi) - math.pi
    east = around * _AXIS / np.sqrt(bend) * np.cos(middle)
    north = np.radians(lat - lat[:1]) * _AXIS * (1 - _ECCENTRICITY) / bend**1.5
    along_cols = east[0] - east[1], north[0] - north[1]
    along_rows = east[2] - east[3], north[2] - north[3]
    area = np.abs(along_cols[0] * along_rows[1] - along_cols[1] * along_rows[0])
    return np.stack([np.hypot(*along_rows), np.hypot(*along_cols), area])


def area_lattice(crs: rasterio.CRS, transform: Sequence[float], size: Size) -> DoubleArray:
    """Square metres of a pixel, at places spread evenly over an image: (k, k), or (1, 1) where one value holds.

    A projection that is right to one percent is taken as it is. NaN where a place is not on Earth.
    """
    rows, cols = np.meshgrid(np.linspace(0, size.height, _LATTICE), np.linspace(0, size.width, _LATTICE), indexing="ij")
    true = pixel_sides(crs, transform, rows.ravel(), cols.ravel())[2].reshape(rows.shape)
    a, b, _, d, e, _ = transform
    said = abs(a * e - b * d) * (crs.linear_units_factor[1] ** 2 if crs.is_projected else math.nan)
    return np.array([[said]]) if not np.isfinite(true).all() or (np.abs(true / said - 1) < _RIGHT).all() else true


def resolution_of(dataset: Any, place: Georeference | None) -> Resolution | None:
    """Of an open rasterio dataset: from its place on the ground, a scanner's description or the TIFF's own tags."""
    if place is not None and place.crs:
        return on_ground(place, Size(*dataset.shape))
    tags = dataset.tags()
    description = tags.get("TIFFTAG_IMAGEDESCRIPTION", "")
    return _described(description) or _imagej(description, tags) or tagged(tags)


def on_ground(place: Georeference, size: Size) -> Resolution | None:
    """How large pixels are in truth, whatever the projection says; None where they differ by more than a tenth.

    A projection that is right to half a percent is taken as it is.
    """
    crs = rasterio.CRS.from_wkt(place.crs)
    a, b, _, d, e, _ = place.transform
    unit = crs.linear_units_factor[1] if crs.is_projected else 0.0
    said = np.array([math.hypot(b, e), math.hypot(a, d)]) * unit
    rows, cols = (share.ravel() * side for share, side in zip(_SPREAD, (size.height, size.width), strict=True))
    sides = pixel_sides(crs, place.transform, rows, cols)[:2]
    if not np.isfinite(sides).all() or (unit and (np.abs(sides / said[:, None] - 1) < _MEASURED).all()):
        return Resolution.known(*said)
    alike = (sides.max(axis=1) <= _ALIKE * sides.min(axis=1)).all()
    return Resolution.known(*np.median(sides, axis=1)) if alike else None


def _described(text: str) -> Resolution | None:
    """From the description that Aperio's scanners write, or from OME-XML."""
    found = _MPP.search(text)
    rows, cols = [_number(found[1]) * 1e-6] * 2 if found else (_ome(text, axis) for axis in "YX")
    return Resolution.known(rows, cols)


def _ome(text: str, axis: str) -> float:
    size, unit = re.search(_OME.format(axis), text), re.search(_OME.format(f"{axis}Unit"), text)
    return _number(size[1]) * METRES.get(unit[1] if unit else "um", 0.0) if size else 0.0


def _imagej(text: str, tags: Mapping[str, str]) -> Resolution | None:
    """ImageJ names the unit in its description, of which the tags count the pixels."""
    unit = re.search(r"^unit=(.+)$", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    name = unit[1].strip() if unit else ""
    return _counted(tags, METRES.get(_IMAGEJ.get(name, name), 0.0))


def tagged(tags: Mapping[str, str]) -> Resolution | None:
    """From the TIFF's own tags; None where they say the size of a print."""
    found = _counted(tags, _UNITS.get(tags.get("TIFFTAG_RESOLUTIONUNIT", "").partition(" ")[0], 0.0))
    return found if found and max(found.row, found.col) <= _LARGEST else None


def _counted(tags: Mapping[str, str], unit: float) -> Resolution | None:
    """From how many pixels the tags count in so many metres."""
    rows, cols = (_number(tags.get(f"TIFFTAG_{axis}RESOLUTION", "")) for axis in "YX")
    return Resolution.known(unit / rows, unit / cols) if min(rows, cols) > 0 else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
