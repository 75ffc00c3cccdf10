"""Rasters as cloud-optimised GeoTIFF, block by block or from a whole image; and what GDAL is told in any case."""

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import numpy as np
import rasterio.shutil
from rasterio.enums import Resampling

from foveate.devices import give_back_freed_memory
from foveate.errors import ConfigError, FoveateError, OutputWriteError
from foveate.files import written
from foveate.geometry import BoolArray, Georeference, Raster, Resolution, Size, Window, halvings, windows_over

TILE = 512
NODATA = 255  # in every raster of bytes: not looked at, or pixels that could not be read
FULL = 254  # the byte that stands for 1
DRAFT = "cog.tif"  # of the file that `drafted` gives its name

Compression: TypeAlias = Literal["deflate", "zstd", "lzw", "jpeg", "none"]
Progress: TypeAlias = Callable[[float], None]
_WRITING_SHARE, _JPEG_QUALITY = 0.6, 90
STRIP_BYTES = 64 << 20  # read and written at a time
# What is written of a block, by the name of the output: arrays (h, w) or (bands, h, w), or those cut into tiles.
Layers: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RasterSpec:
    """What a raster is that is written block by block."""

    size: Size  # of the raster, in its own pixels
    dtype: str  # numpy name of its values
    georeference: Georeference | None = None  # of this raster's own pixel grid
    resolution: Resolution | None = None  # of a pixel; written where there is no georeference
    bands: Sequence[str] = ("",)  # what each band is; one without a name by default
    colors: Sequence[tuple[int, int, int]] = ()  # colour table for class ids 0, 1, ...
    tags: Mapping[str, str] = field(default_factory=dict)  # metadata
    nodata: int | None = None  # stands for "not known"; of floats it is always NaN, also where nothing is written
    scale: float | None = None  # what a stored value is multiplied with to get the real one; 1 when None
    overviews: Literal["mode", "average", "nearest"] = "average"  # "mode" for class ids, which must not be blended


@dataclass(frozen=True, slots=True)
class TiffSource:
    """An image that is written as a TIFF."""

    size: Size
    bands: int
    dtype: np.dtype[Any]
    read: Callable[[Window], Raster]  # the pixels (bands, h, w) of a window inside the image
    by_rows: bool = False  # whether rows must be read whole
    valid: Callable[[Window], BoolArray] | None = None  # (h, w) which pixels hold data, where nothing else says it
    nodata: float | None = None  # value of pixels without data
    georeference: Georeference | None = None
    resolution: Resolution | None = None  # of a pixel; written where there is no georeference
    codes: bool = False  # whether the file says that values stand for classes or colours, which must not be blended
    describe: Callable[[Any], None] | None = None  # says more of the bands, to an open TIFF, before the first pixel


class RasterWriter:
    """One open raster; made by `open_raster`."""

    def __init__(self, dataset: Any, path: Path) -> None:
        self._dataset, self._path = dataset, path

    def write(self, window: Window, values: Raster) -> None:
        """Write (h, w), or (bands, h, w) where there are several, into a window of the raster's own pixels.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        with writing(self._path):
            self._dataset.write(values.reshape(-1, *values.shape[-2:]), window=window.ranges)


@contextmanager
def open_raster(path: Path, spec: RasterSpec, *, overwrite: bool = False) -> Iterator[RasterWriter]:
    """Open a raster for writing; it becomes a cloud-optimised GeoTIFF when the block ends well.

    A cloud-optimised file holds its overviews before its pixels, so pixels go to a plain tiled file first, which GDAL
    copies strip by strip: memory does not grow with the raster, and for a while the disk holds it twice.

    Raises:
        OutputExistsError: when the file exists and `overwrite` is false.
        OutputWriteError: when writing fails; nothing is left under the final name then.
    """
    with drafted(path, overwrite) as folder, writing(path):
        plain, optimised = folder / "plain.tif", folder / DRAFT
        with _opened(plain, "w", **_profile(spec)) as dataset:
            _describe(dataset, spec)
            yield RasterWriter(dataset, path)
        _check_complete(plain)
        # Differences of neighbours compress better than values, but not those of class ids.
        predictor = "YES" if spec.overviews == "average" else "NO"
        resampling = {"overviews": "IGNORE_EXISTING", "overview_resampling": spec.overviews.upper()}
        copy_as_cog(plain, optimised, tile=TILE, compress="DEFLATE", predictor=predictor, **resampling)
        plain.unlink()
        _check_complete(optimised)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what GDAL and the file system say into an `OutputWriteError` that names the result."""
    try:
        yield
    except FoveateError:
        raise
    except (OSError, rasterio.errors.RasterioError) as error:
        # GDAL says of a full disk on the standard error stream only.
        full = isinstance(error, rasterio.errors.RasterioError) and shutil.disk_usage(path.parent).free < TILE**2
        full |= getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else str(error.__cause__ or error)
        raise OutputWriteError(f"could not write {path}: {reason}; nothing was left under that name") from error


@contextmanager
def drafted(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside a file for all that is not complete; its `DRAFT` becomes the file when the block ends well.

    A folder, as GDAL puts files of its own beside the one that it writes.
    """
    with (
        written(path, overwrite=overwrite) as partial,
        TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent, ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)
        (Path(folder) / DRAFT).replace(partial)


def copy_as_cog(plain: Path, optimised: Path, *, tile: int, compress: str, **options: Any) -> None:
    """Copy a tiled TIFF strip by strip as a cloud-optimised one, which holds its overviews before its pixels."""
    quiet()
    rasterio.shutil.copy(
        plain, optimised, driver="COG", blocksize=tile, compress=compress, bigtiff="IF_SAFER", **options
    )
    give_back_freed_memory()  # else what one raster's overviews took adds to what the next one takes


def write_template(spec: RasterSpec, path: Path) -> bytes:
    """A file of one tile that says all that the raster says about itself; it is written by GDAL, and removed."""
    small = replace(spec, size=Size(TILE, TILE))
    profile = _profile(small) | {"BIGTIFF": "NO", "interleave": "pixel", "predictor": 1 + (spec.overviews == "average")}
    try:
        with _opened(path, "w", **profile) as dataset:
            _describe(dataset, small)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _profile(spec: RasterSpec) -> dict[str, Any]:
    nodata = np.nan if np.dtype(spec.dtype).kind == "f" else spec.nodata
    options = {"count": len(spec.bands), "dtype": spec.dtype, "nodata": nodata, "compress": "deflate", "zlevel": 1}
    return _placed(spec, TILE) | options


def _placed(what: RasterSpec | TiffSource, tile: int) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": what.size.height, "width": what.size.width,
        "tiled": True, "blockxsize": tile, "blockysize": tile, "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    place = what.georeference
    return profile | ({"crs": place.crs, "transform": rasterio.Affine(*place.transform)} if place else {})


def _describe(dataset: Any, spec: RasterSpec) -> None:
    """Before the first pixel: afterwards the TIFF's header is on disk and would be written a second time."""
    if spec.colors:
        dataset.write_colormap(1, {i: (*color, 255) for i, color in enumerate(spec.colors)})
    dataset.update_tags(**spec.tags, **_resolution_tags(spec))
    dataset.descriptions = tuple(spec.bands)
    if spec.scale is not None:
        dataset.scales, dataset.offsets = (spec.scale,) * dataset.count, (0.0,) * dataset.count


def _resolution_tags(what: RasterSpec | TiffSource) -> dict[str, str]:
    """Pixels per centimetre, the TIFF's own way to say how large a pixel is; nothing where a georeference says it."""
    pixel = what.resolution
    if pixel is None or what.georeference is not None:
        return {}
    return {
        "TIFFTAG_XRESOLUTION": repr(0.01 / pixel.col),
        "TIFFTAG_YRESOLUTION": repr(0.01 / pixel.row),
        "TIFFTAG_RESOLUTIONUNIT": "3",
    }


def _opened(path: Path, mode: str, **options: Any) -> Any:
    quiet()
    return rasterio.open(path, mode, **options)


def _check_complete(path: Path) -> None:
    """Read one tile back: GDAL reports some failed writes of its cache only as a warning when it closes."""
    with _opened(path, "r") as dataset:
        dataset.read(1, window=Window(dataset.height - 1, dataset.width - 1, 1, 1).ranges)


def write_pyramid(
    source: TiffSource,
    destination: Path,
    *,
    overwrite: bool = False,
    tile: int = 512,
    compression: Compression = "deflate",
    labels: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a cloud-optimised TIFF (BigTIFF where the size may need it) with overviews, as by `open_raster`.

    See `foveate.data.pyramids.convert` for the arguments and errors.
    """
    source = replace(source, codes=source.codes or labels)
    _check(source, tile, compression)
    report = progress or (lambda share: None)
    with drafted(destination, overwrite) as folder:
        # What is compressed with loss must be so once only.
        lossless = "deflate" if compression == "jpeg" else compression
        plain = folder / "plain.tif"
        write_plain_pyramid(source, plain, tile=tile, compression=lossless, report=report)
        options = _compression_options(source, compression) | {"overviews": "AUTO"}
        copy_as_cog(plain, folder / DRAFT, tile=tile, compress=compression, **options)
    report(1.0)


def _check(source: TiffSource, tile: int, compression: Compression) -> None:
    if tile not in {64 << k for k in range(7)}:
        raise ConfigError(f"tile must be a power of two from 64 to 4096, got {tile}")
    if compression != "jpeg":
        return
    if source.codes:
        raise ConfigError(
            "labels and images with a colour table cannot be compressed with 'jpeg', which changes values; "
            "use 'deflate'"
        )
    if source.dtype != np.uint8 or source.bands not in (1, 3):
        raise ConfigError(
            f"'jpeg' takes 8-bit images of 1 or 3 bands, got {source.bands} bands of {source.dtype}; use 'deflate'"
        )


def write_plain_pyramid(
    source: TiffSource,
    path: Path,
    *,
    tile: int = TILE,
    compression: Compression = "zstd",
    report: Progress = lambda share: None,
) -> None:
    """Write a tiled TIFF with overviews, by default compressed a little; see `write_pyramid`."""
    profile = _placed(source, tile) | _compression_options(source, compression)
    profile |= {"count": source.bands, "dtype": source.dtype.name, "nodata": source.nodata, "compress": compression}
    with _opened(path, "w", **profile) as output, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        if source.describe is not None:
            source.describe(output)
        if tags := _resolution_tags(source):
            output.update_tags(**tags)
        for window in _windows(source, tile):
            output.write(source.read(window), window=window.ranges)
            if source.valid is not None:
                output.write_mask(source.valid(window), window=window.ranges)
            report(_WRITING_SHARE * window.bottom / source.size.height)
    factors = [1 << k for k in range(1, len(halvings(source.size)))]
    if factors:
        with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=str(tile)), _opened(path, "r+") as output:
            output.build_overviews(factors, Resampling.nearest if source.codes else Resampling.average)


def _compression_options(source: TiffSource, compression: Compression) -> dict[str, Any]:
    """Differences of neighbours compress better than pixels: predictor 2 is for integers, 3 for floats."""
    if compression == "jpeg":
        return {"quality": _JPEG_QUALITY}
    return {} if compression == "none" else {"predictor": 3 if source.dtype.kind == "f" else 2}


def _windows(source: TiffSource, tile: int) -> Iterator[Window]:
    """A read and its write are each within the bound; rows of tiles, so that every tile is written once."""
    width = max(tile, STRIP_BYTES // (tile * source.bands * source.dtype.itemsize) // tile * tile)
    return windows_over(source.size, tile, source.size.width if source.by_rows else width)


# Megabytes. By default GDAL keeps decoded tiles of up to 5 % of the machine's memory, in every process: memory must be
# bounded by what is worked on, not by the machine. Read by GDAL when it first caches; the user's own value is kept,
# but for `small_cache`, whose bytes are never more than these.
os.environ.setdefault("GDAL_CACHEMAX", "128")
_SMALL_CACHE = 32 * 2**20
# A server that is busy is asked again, and one that never answers is given up.
for _name, _value in (("MAX_RETRY", "3"), ("RETRY_DELAY", "0.5"), ("CONNECTTIMEOUT", "10"), ("TIMEOUT", "60")):
    os.environ.setdefault(f"GDAL_HTTP_{_name}", _value)


def quiet() -> None:
    """Ignore rasterio's warning that an image has no georeference, from here on: most images have none.

    Not only while a file is opened: `catch_warnings` swaps a list of the whole process, and what another thread puts
    back in the middle of an opening would turn the warning on again.
    """
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)


@contextmanager
def small_cache() -> Iterator[None]:
    """Let GDAL keep few decoded tiles: for a walk over an image, which comes back to its last tiles only."""
    with rasterio.Env(GDAL_CACHEMAX=small_cache_bytes()):
        yield


def small_cache_bytes() -> int:
    """What GDAL keeps within `small_cache`: 32 MiB, or less where that is its usual limit."""
    with rasterio.Env():
        return min(int(rasterio.env.get_gdal_config("GDAL_CACHEMAX")), _SMALL_CACHE)
