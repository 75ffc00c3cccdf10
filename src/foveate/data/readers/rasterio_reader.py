"""Files that GDAL reads: by windows (TIFF, COG, JPEG 2000, VRT), by pages that belong together, or decoded once.

Which page of a TIFF is which channel, plane or time, and which pages are levels of a pyramid, tifffile knows. GDAL
reads the pixels: the pages of a level are put together as a VRT in memory, a band for each channel.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from foveate.data.readers._gdal_checks import JPEG, PNG
from foveate.data.readers.array import ArrayReader, padded, planes_chosen
from foveate.data.readers.base import PLAIN, Address, Known, OpenOptions, Plane, first_bytes
from foveate.data.readers.gdal import BY_ROWS, GdalReader, open_dataset, open_made, read_valid, reading
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import FoveateError, ImageReadError, UnsupportedImageError
from foveate.files import TemporaryFolder
from foveate.geometry import BoolArray, Raster, Size, Window, halvings
from foveate.tiff.raster import write_plain_pyramid

_log = logging.getLogger(__name__)
_NAMES = dict.fromkeys("IQ", "page")  # axes that a file does not name
_PAGES_ASKED = 8  # of a server


@dataclass(frozen=True, slots=True)
class Stack:
    """An image that is spread over pages."""

    format: str  # "OME-TIFF", "ImageJ TIFF" or "TIFF pages"
    levels: tuple[tuple[int, ...], ...]  # of each level the offsets of the pages of its channels, finest first
    names: tuple[str, ...]  # of the channels; empty where the file gives none


def stack_in(dataset: Any, location: Address, plane: Plane | None) -> Stack | None:
    """How the pages of an open TIFF make an image; None where its first page is the image.

    Raises:
        UnsupportedImageError: naming what cannot be read.
        SeveralPlanesError: naming an axis of several planes of which none was chosen.
    """
    description = dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
    if dataset.driver != "GTiff" or not (dataset.subdatasets or description.startswith("ImageJ=")):
        return None
    if not location.is_local:
        _refuse_remote(dataset, location)
        return None
    import tifffile  # noqa: PLC0415 - few files need it

    try:
        with tifffile.TiffFile(location.path, _multifile=False) as file:
            return _stack(file, file.series[0], str(location), plane)
    except FoveateError:
        raise
    except Exception as error:  # files of any content
        raise UnsupportedImageError(f"{location} holds pages that cannot be identified: {error}") from None


def _stack(file: Any, series: Any, image: str, plane: Plane | None) -> Stack | None:
    lengths = dict(zip(series.get_axes(False), series.get_shape(False), strict=True))
    if set(series.keyframe.axes) - set("YXS"):
        raise UnsupportedImageError(f"{image} has pages with the axes {series.keyframe.axes}; store planes as pages")
    outer = {_NAMES.get(axis, axis.lower()): length for axis, length in lengths.items() if axis not in "YXS"}
    if max(outer.values(), default=1) == 1 and len(series.levels) == 1:
        return None  # what else there is are thumbnails, labels and the like
    if np.prod(list(outer.values()), dtype=int) != len(series.pages):
        raise UnsupportedImageError(
            f"{image} claims {np.prod(list(outer.values()))} planes but describes {len(series.pages)}, as large stacks "
            "from ImageJ do; save it as OME-TIFF"
        )
    channels = _channels(outer, plane, image)
    levels = tuple(tuple(_offset(level.pages[page], image) for page in channels) for level in series.levels)
    kind = {"ome": "OME-TIFF", "imagej": "ImageJ TIFF"}.get(series.kind, "TIFF pages")
    names = _ome_names(file.ome_metadata) if series.kind == "ome" else ()
    return Stack(kind, levels, names if len(names) == len(channels) else ())


def _channels(outer: Mapping[str, int], plane: Plane | None, image: str) -> list[int]:
    """The pages of the channels, of the plane that was chosen."""
    bands = ("c", "page") if plane == "bands" else ("c",)
    chosen = planes_chosen({axis: n for axis, n in outer.items() if axis not in bands}, plane, image)
    places = [[chosen[axis]] if axis in chosen else range(n) for axis, n in outer.items()]
    return [int(np.ravel_multi_index(place, tuple(outer.values()))) for place in product(*places)] if outer else [0]


def _offset(page: Any, image: str) -> int:
    if page is None:
        raise UnsupportedImageError(f"{image} lacks planes that it describes; they may be in other files: join them")
    return int(page.offset)


def _ome_names(text: str | None) -> tuple[str, ...]:
    """Names of the channels of the first image."""
    pixels = ElementTree.fromstring(text or "<none/>").find(".//{*}Pixels")
    names = () if pixels is None else tuple(channel.get("Name", "") for channel in pixels.iterfind("{*}Channel"))
    return names if any(names) else ()


def _refuse_remote(dataset: Any, location: Address) -> None:
    """Of a server's file only pages of one size may belong together; others are thumbnails and the like."""
    for page in dataset.subdatasets[1:_PAGES_ASKED]:
        with open_made(page, "GTiff") as other:
            if other.shape == dataset.shape:
                raise UnsupportedImageError(
                    f"{location} holds {len(dataset.subdatasets)} pages of one size, which may be channels or planes; "
                    "download it, or store it as COG or OME-Zarr"
                )


def _opened_stack(stack: Stack, location: Address) -> Iterator[Any]:
    """The levels of an image that is spread over pages, as open rasterio datasets, finest first."""
    for offsets in stack.levels:
        with open_made(_page(location, offsets[0]), "GTiff") as first:
            yield open_made(_vrt(first, stack.names, location, offsets), "VRT")


def _page(location: Address, offset: int) -> str:
    return f"GTIFF_DIR:off:{offset}:{location.gdal}"


def _vrt(first: Any, names: Sequence[str], location: Address, offsets: Sequence[int]) -> str:
    """A VRT whose bands are those of some pages, one page after the other; place and tags are those of the first."""
    place = ""
    if first.crs or not first.transform.is_identity:
        numbers = ", ".join(map(repr, first.transform.to_gdal()))
        place = f"<SRS>{escape(first.crs.to_wkt() if first.crs else '')}</SRS><GeoTransform>{numbers}</GeoTransform>"
    tags = "".join(f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in first.tags().items())
    bands = "".join(_bands(first, names, location, offsets))
    return (
        f'<VRTDataset rasterXSize="{first.width}" rasterYSize="{first.height}">{place}<Metadata>{tags}</Metadata>'
        f"{bands}</VRTDataset>"
    )


def _bands(first: Any, names: Sequence[str], location: Address, offsets: Sequence[int]) -> Iterator[str]:
    size = f'RasterXSize="{first.width}" RasterYSize="{first.height}"'
    for channel, offset in enumerate(offsets):
        for index in first.indexes:
            dtype = first.dtypes[index - 1]
            kind = "Byte" if dtype == "uint8" else dtype.replace("int", "Int").replace("u", "U").replace("f", "F")
            rows, cols = first.block_shapes[index - 1]
            nodata = first.nodatavals[index - 1]
            alone = first.count == 1
            name = names[channel] if names and alone else first.descriptions[index - 1] or ""
            colour = "Gray" if alone else first.colorinterp[index - 1].name.capitalize()
            yield (
                f'<VRTRasterBand dataType="{kind}" band="{channel * first.count + index}">'
                f"<Description>{escape(name)}</Description><ColorInterp>{colour}</ColorInterp>"
                + ("" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>")
                + '<SimpleSource><SourceFilename relativeToVRT="0" shared="0">'
                f"{escape(_page(location, offset))}</SourceFilename><SourceBand>{index}</SourceBand>"
                f'<SourceProperties {size} DataType="{kind}" BlockXSize="{cols}" BlockYSize="{rows}"/></SimpleSource>'
                "</VRTRasterBand>"
            )


class RasterioReader(GdalReader):
    """Reads windows from a file and from its overviews.

    The overviews are trusted to be means (or wavelet averages, as in JPEG 2000): those made by
    `foveate.data.pyramids.convert` are; overviews that another program made by picking pixels do alias.
    """

    def __init__(self, location: Address, options: OpenOptions = PLAIN) -> None:
        self.path, self._location, self._options = location.path, location, options
        self._datasets, kind = self._opened()
        try:
            self._describe(self.dataset, options)
        except Exception:
            self.close()
            raise
        self.format = kind or self.format
        self.handles = sum(level.count if kind else 1 for level in self._datasets)
        self.levels = tuple(Size(*level.shape) for level in self._datasets)

    @property
    def dataset(self) -> Any:
        """The image as rasterio has it, at full resolution; closed with the reader."""
        return self._datasets[0]

    def _opened(self) -> tuple[list[Any], str]:
        """The levels, finest first; and the kind of the file, if they are spread over pages."""
        dataset = open_dataset(self._location)
        stack = stack_in(dataset, self._location, self._options.plane)
        if stack is None:
            return _pyramid(_levels(dataset, self._location)), ""
        dataset.close()
        return _pyramid(list(_opened_stack(stack, self._location))), stack.format

    @contextmanager
    def _opened_again(self) -> Iterator[None]:
        """After an error: GDAL keeps what it made of a damaged tile, and would give that the next time."""
        try:
            yield
        except ImageReadError:
            with suppress(FoveateError):  # it may be gone
                old, (self._datasets, _) = self._datasets, self._opened()
                for dataset in old:
                    dataset.close()
            raise

    def _read_level(self, level: int, window: Window) -> Raster:
        with self._opened_again():
            return self._pixels(self._datasets[level], self._indexes, window)

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        if not self._by_mask:
            return None
        with self._opened_again(), reading(self.location, window):
            return read_valid(self._datasets[level], window)

    def close(self) -> None:
        """Close the handles of all levels."""
        for dataset in self._datasets:
            dataset.close()


def _levels(dataset: Any, location: Address) -> list[Any]:
    """A file and its overviews. All are opened now: only the opened level knows its exact size."""
    every_band_has = min(len(dataset.overviews(index)) for index in dataset.indexes)
    open_level = partial(open_made, location.gdal, dataset.driver, remote=location.is_remote)
    return [dataset, *(open_level(overview_level=level) for level in range(every_band_has))]


def _pyramid(datasets: list[Any]) -> list[Any]:
    """The levels that show the whole image, finest first; others are closed.

    GDAL counts every further image of a slide's TIFF as an overview, its label and the photograph of the glass too.
    """
    levels, full = [datasets[0]], Size(*datasets[0].shape)
    for level in datasets[1:]:
        if full.reduces_to(Size(*level.shape)) and level.height < levels[-1].height and level.width < levels[-1].width:
            levels.append(level)
        else:
            level.close()
    return levels


class DecodedReader(GdalReader):
    """Decodes the file at the first read and keeps it, in memory or, when it is large, in a temporary tiled TIFF."""

    random_access = False
    handles = 0

    def __init__(self, location: Address, options: OpenOptions = PLAIN) -> None:
        self.path, self._location, self._options = location.path, location, options
        self._store: ImageReader | None = None
        self._folder: TemporaryFolder | None = None
        with open_dataset(location) as dataset:
            self._describe(dataset, options)
        self.levels = halvings(self.size)
        decoded = self.size.pixels * self.bands * self.dtype.itemsize
        self._in_memory = decoded <= options.decode_limit_bytes
        # The levels together add a third.
        held = decoded * 4 // 3 + (self.size.pixels if self._by_mask else 0)
        self.resident_bytes = held if self._in_memory else 0
        self._extents = padded(self.levels) if self._in_memory else ()

    def _level(self, level: int, window: Window, ask: bool) -> Known:
        return self._decoded()._level(level, window, ask)

    def valid(self, window: Window) -> BoolArray:
        """Those of the decoded image."""
        return self._decoded().valid(window)

    def _decoded(self) -> ImageReader:
        if self._store is None:
            with reading(self.location), open_dataset(self._location) as dataset:
                self._store = self._kept(dataset) if self._in_memory else self._spilled(dataset)
            self._store.nodata = self.nodata
        return self._store

    def _kept(self, dataset: Any) -> ImageReader:
        valid = read_valid(dataset) if self._by_mask else None
        return ArrayReader(dataset.read(self._indexes), self.location, valid=valid)

    def _spilled(self, dataset: Any) -> ImageReader:
        """The image as a temporary tiled TIFF pyramid."""
        needed = self.size.pixels * (self.bands * self.dtype.itemsize + 1)  # with a mask
        _log.warning("%s is decoded into a temporary file of up to %.1f GiB", self._location, needed / 2**30)
        self._folder = TemporaryFolder(needed, f"decoding {self._location}")
        copy = Path(self._folder.name) / "decoded.tif"
        try:
            write_plain_pyramid(self.source(dataset), copy)
            spilled = RasterioReader(Address.of(copy), self._options)
        except BaseException:
            self._folder.cleanup()
            raise
        with suppress(OSError):
            copy.unlink()  # it stays as long as it is open, and no longer where this process is killed
        return spilled

    def close(self) -> None:
        """Drop the decoded image, or delete the temporary file; a later read decodes again."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._folder is not None:
            self._folder.cleanup()


def open_decoded(location: Address, options: OpenOptions) -> DecodedReader | None:
    """The registry's entry: None when the file is neither PNG nor JPEG."""
    if not location.is_local:
        with open_dataset(location) as dataset:  # GDAL keeps the first bytes for the reader that comes next
            ours = dataset.driver in BY_ROWS
    else:
        ours = location.path.is_file() and first_bytes(location.path).startswith((PNG, JPEG))
    return DecodedReader(location, options) if ours else None
