"""Files with random access that GDAL reads: TIFF, COG, JPEG 2000, VRT, and TIFFs whose pages belong together.

Which page is which channel, plane or time, and which pages are levels of a pyramid, tifffile knows. GDAL reads the
pixels: the pages of a level are put together as a VRT in memory, a band for each channel.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from foveate.data.readers.array import planes_chosen
from foveate.data.readers.base import PLAIN, Address, OpenOptions, Plane
from foveate.data.readers.gdal import GdalReader, open_dataset, open_made, read_valid, reading
from foveate.errors import FoveateError, UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.types import BoolArray, Raster

_NAMES = {"I": "page", "Q": "page"}  # axes that a file does not name
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
    outer = {axis: length for axis, length in lengths.items() if axis not in "YXS"}
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
    bands = {"C", "I", "Q"} if plane == "bands" else {"C"}
    counts = {_NAMES.get(axis, axis.lower()): length for axis, length in outer.items() if axis not in bands}
    chosen = planes_chosen(counts, plane, image)
    places = [range(n) if a in bands else [chosen[_NAMES.get(a, a.lower())]] for a, n in outer.items()]
    return [int(np.ravel_multi_index(place, tuple(outer.values()))) for place in product(*places)] if outer else [0]


def _offset(page: Any, image: str) -> int:
    if page is None:
        raise UnsupportedImageError(f"{image} lacks planes that it describes; they may be in other files: join them")
    return int(page.offset)


def _ome_names(text: str | None) -> tuple[str, ...]:
    """Names of the channels of the first image."""
    for pixels in ElementTree.fromstring(text or "<none/>").iterfind(".//{*}Pixels"):
        names = tuple(channel.get("Name", "") for channel in pixels.iterfind("{*}Channel"))
        return names if any(names) else ()
    return ()


def _refuse_remote(dataset: Any, location: Address) -> None:
    """Of a server's file only pages of one size may belong together; others are thumbnails and the like."""
    for page in dataset.subdatasets[1:_PAGES_ASKED]:
        with open_made(page, "GTiff") as other:
            if other.shape == dataset.shape:
                raise UnsupportedImageError(
                    f"{location} holds {len(dataset.subdatasets)} pages of one size, which may be channels or planes; "
                    "download it, or store it as COG or OME-Zarr"
                )


def open_stack(stack: Stack, location: Address) -> list[Any]:
    """The levels of an image that is spread over pages, as open rasterio datasets, finest first."""
    levels = []
    for offsets in stack.levels:
        with open_made(_page(location, offsets[0]), "GTiff") as first:
            levels.append(open_made(_vrt(first, stack.names, location, offsets), "VRT"))
    return levels


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
        self.path, self._location = location.path, location
        self._datasets = [open_dataset(location)]
        try:
            stack = stack_in(self._datasets[0], location, options.plane)
            self._datasets = _pyramid(_levels(self._datasets[0], location) if stack is None else self._of_pages(stack))
            self._describe(self._datasets[0], options)
        except Exception:
            self.close()
            raise
        self.format = self.format if stack is None else stack.format
        self.handles = sum(1 if stack is None else level.count for level in self._datasets)
        self.levels = tuple(Size(*level.shape) for level in self._datasets)

    def _of_pages(self, stack: Stack) -> list[Any]:
        self.close()
        return open_stack(stack, self._location)

    @property
    def dataset(self) -> Any:
        """The image as rasterio has it, at full resolution; closed with the reader."""
        return self._datasets[0]

    def _read_level(self, level: int, window: Window) -> Raster:
        with reading(self.location, window):
            raster: Raster = self._datasets[level].read(self._indexes, window=window.ranges, out_dtype=self.dtype)
        return raster

    def _marked(self, level: int, window: Window) -> BoolArray | None:
        if not self._by_mask:
            return None
        with reading(self.location, window):
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
