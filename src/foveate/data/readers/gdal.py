"""What the readers and the converter share about GDAL: opening, the header, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from foveate.data.readers._gdal_checks import check_length, check_overviews, drivers_for
from foveate.data.readers.base import Address, OpenOptions, check_blocks, first_bytes, redacted, representable
from foveate.data.readers.pyramid import ImageReader
from foveate.data.readers.resolution import resolution_of
from foveate.errors import FoveateError, ImageReadError, UnsupportedImageError, reason_of
from foveate.geometry import Georeference, Size, Window
from foveate.tiff.raster import quiet
from foveate.types import BoolArray

# Nobody asks a server for the list of its folder, nor for each of the files that may lie beside an image.
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
# Whatever the environment says: no image runs programs, and no VRT reads raw bytes of other files.
_SAFE = {"GDAL_VRT_ENABLE_PYTHON": "NO", "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO"}

# Ground control points make a place where an affine map fits them to a pixel.
_FEWEST_POINTS, _MOST_APART = 3, 1.0


def open_dataset(path: Path | str | Address, mode: str = "r", **options: Any) -> Any:
    """A rasterio dataset.

    Args:
        path: a file, a URL or a GDAL virtual path.
        mode: as of `rasterio.open`. To read, only the drivers of `drivers_for` are asked.
        options: passed to `rasterio.open`.

    Raises:
        ImageReadError: when a server has no such file, or does not answer.
        UnsupportedImageError: when GDAL cannot or must not open the file.
    """
    location = Address.of(path)
    try:
        quiet()
        with rasterio.Env(**_SAFE, **(_REMOTE if location.is_remote else {})):
            if mode != "r":
                return rasterio.open(location.gdal, mode, **options)
            return _opened(location, options)
    except RasterioError as error:
        reason = redacted(str(error))
        signs = ("HTTP response code", "does not exist", "resolve host", "connect to")
        if location.is_remote and any(sign in reason for sign in signs):
            raise ImageReadError(f"no image at {location}: {reason}") from None
        raise UnsupportedImageError(f"GDAL cannot open {location}: {reason}{_beginning(location)}") from None


def open_made(text: str, driver: str) -> Any:
    """A rasterio dataset of what was made here, not by a stranger: a VRT, or the name of a page of an open file."""
    quiet()
    with rasterio.Env(**_SAFE, **_REMOTE):
        return _open(text, driver=[driver])


def open_level(location: Address, driver: str, level: int) -> Any:
    """An overview of a file that `open_dataset` opened, and looked at, before."""
    quiet()
    with rasterio.Env(**_SAFE, **(_REMOTE if location.is_remote else {})):
        return _open(location.gdal, driver=[driver], overview_level=level)


def _opened(location: Address, options: dict[str, Any]) -> Any:
    dataset = _open(location.gdal, driver=drivers_for(location), **options)
    try:
        check_overviews(dataset)
        check_blocks(dataset)
        if location.is_local and location.path.is_file():
            check_length(dataset, location.path)
    except BaseException:
        dataset.close()
        raise
    return dataset


@ensure_env_with_credentials  # type: ignore[untyped-decorator]  # rasterio has no types
def _open(path: str, **options: Any) -> Any:
    """`rasterio.open` takes one driver only."""
    return DatasetReader(path, **options)


def _beginning(location: Address) -> str:
    """What a text is that has the name of a picture."""
    if not (location.is_local and location.path.is_file()):
        return ""
    head = first_bytes(location.path, 24).lstrip()
    return f" (it is text: {head.decode(errors='replace')}...)" if head.startswith((b"<", b"{")) else ""


@contextmanager
def reading(path: Path | str, window: Window | None = None) -> Iterator[None]:
    """Turn GDAL's errors into `ImageReadError` naming the file and the window.

    By default libjpeg only warns about a truncated file, and GDAL's fast way of decoding a whole PNG does not even do
    that: both return what is missing as grey or zero. PNG and JPEG must be opened within this context too.
    """
    try:
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True, GDAL_PNG_WHOLE_IMAGE_OPTIM=False, **_SAFE):
            yield
    except FoveateError:
        raise
    except Exception as error:  # GDAL's own, and what is raised about metadata of any content
        place = f" at {window}" if window else ""
        reason = redacted(reason_of(error.__cause__ or error))
        raise ImageReadError(f"could not read {path}{place}: {reason}; the file is damaged or incomplete") from error


class GdalReader(ImageReader):
    """What a reader says of a file that GDAL reads, from its header."""

    _location: Address

    def _describe(self, dataset: Any, options: OpenOptions) -> None:
        """Set what the header of an open dataset says.

        Raises:
            UnsupportedImageError: when there is no band, or the pixels are complex numbers.
        """
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
        said = [dataset.nodatavals[index - 1] if options.use_nodata else None for index in indexes]
        self.nodata = tuple(representable(value, dtype) for value in said)
        self.masked = self._by_mask or any(self.nodata) or dtype.kind == "f"
        self.band_names = tuple(_band_name(dataset, index) for index in indexes)
        self.scaling = tuple((dataset.scales[index - 1], dataset.offsets[index - 1]) for index in indexes)
        self.georeference, self.remarks = georeference_of(dataset)
        self.resolution = resolution_of(dataset, self.georeference)


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


def georeference_of(dataset: Any) -> tuple[Georeference | None, tuple[str, ...]]:
    """Where an image lies, and what is to be said of that."""
    if dataset.crs is None and dataset.transform.is_identity:
        points, crs = dataset.gcps
        if len(points) >= _FEWEST_POINTS:
            return _fitted(points, crs)
        unused = (
            "its georeference consists of RPCs, which Foveate does not use; rectify it with gdalwarp -rpc to keep it"
        )
        return None, (unused,) if dataset.rpcs is not None else ()
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
