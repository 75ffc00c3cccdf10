"""Images of a data set as networks see them: a value everywhere, at one pixel size, and kept open while used."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from foveate.data.area import Area, Roi, area_of
from foveate.data.channels import fit, select_channels
from foveate.data.config import DataConfig
from foveate.data.labels import LabelReader, LabelSource, open_source
from foveate.data.locations import Location, LocationSpec, Planned, read_location
from foveate.data.manifest import Sample
from foveate.data.pyramids import with_overviews
from foveate.data.readers import ImageReader, Resolution, open_image
from foveate.data.readers.base import is_pattern, pattern_of
from foveate.data.readers.derived import FilledReader, resized, size_at
from foveate.errors import DatasetError
from foveate.texts import length
from foveate.types import Tissue

MAX_OPEN = 64
# Each level of a TIFF is an open file. Many systems give a process 1024, and a worker has two caches.
MAX_FILES = 256


class ReaderCache:
    """The most recently used readers of one process, bounded in bytes, in number and in open files.

    The one in use is kept even when it alone is over a bound. The readers of another process are never used: after a
    fork the cache is empty, as it is after pickling, because file handles shared between processes share their
    position. With `overviews`, files that lack coarse levels get some, see `with_overviews`.
    """

    def __init__(
        self,
        max_bytes: int,
        opener: Callable[[Path], ImageReader] = open_image,
        *,
        max_open: int = MAX_OPEN,
        max_files: int = MAX_FILES,
        overviews: bool = False,
    ) -> None:
        self._max_bytes, self._max_open, self._max_files = max_bytes, max_open, max_files
        self._open, self._with_overviews = opener, overviews
        self._readers: OrderedDict[Path, ImageReader] = OrderedDict()
        self._process = os.getpid()

    def get(self, path: Path) -> ImageReader:
        """An open reader, which the cache closes; use it before the next call."""
        if self._process != os.getpid():
            self._readers, self._process = OrderedDict(), os.getpid()
        if path not in self._readers:
            reader = self._open(path)
            self._readers[path] = with_overviews(reader) if self._with_overviews else reader
            while len(self._readers) > 1 and self._is_full():
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(path)
        return self._readers[path]

    def _is_full(self) -> bool:
        held = sum(reader.resident_bytes for reader in self._readers.values())
        files = sum(reader.handles for reader in self._readers.values())
        return held > self._max_bytes or files > self._max_files or len(self._readers) > self._max_open

    def close(self) -> None:
        """Close all readers; the cache can be used again."""
        while self._readers:
            self._readers.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": OrderedDict()}


def open_working(image: Path | str, config: DataConfig, pixel_size: float | None = None) -> ImageReader:
    """Open an image as training, evaluation and prediction see it; its pixel size may be given, in metres."""
    reader = open_stored(image, config)
    try:
        return working(reader, config, pixel_size)
    except Exception:
        reader.close()
        raise


def open_stored(image: Path | str, config: DataConfig) -> ImageReader:
    """Open an image as it is stored, but for what the configuration says of bands, planes and missing values."""
    nodata = None if config.nodata == "ignore" else config.nodata
    options: dict[str, Any] = {"plane": config.plane, "nodata": nodata, "use_nodata": config.use_nodata}
    if config.band_files is None:
        return open_image(image, bands=config.bands, **options)
    image = pattern_of(Path(image), config.band_files)
    return open_image(image, band_files=config.band_files if is_pattern(image) else None, **options)


def working(reader: ImageReader, config: DataConfig, pixel_size: float | None = None) -> ImageReader:
    """An open image at the working resolution; what means nothing is replaced by the mean that is subtracted."""
    if config.working_pixel is not None:
        own = _resolution(reader, config, config.working_pixel, pixel_size)
        reader = resized(reader, size_at(reader, own, config.working_pixel), own)
    # A file that may lack values; of all others, the most, nothing need be asked.
    may_lack = reader.masked or reader.dtype.kind == "f"
    return FilledReader(reader, _neutral(reader, config)) if may_lack else reader


def _neutral(reader: ImageReader, config: DataConfig) -> list[float]:
    """Per band the stored value that a network sees as zero."""
    (channels, normalisation, _), fill = fit(reader, config), [0.0] * reader.bands
    for band in set(channels):
        means = [mean for place, mean in zip(channels, normalisation.mean, strict=True) if place == band]
        fill[band] = normalisation.scale * sum(means) / len(means)
    return fill


def _resolution(image: ImageReader, config: DataConfig, working: float, own: float | None) -> Resolution:
    """An image's resolution: as given for it, as the file says, or as assumed, in this order."""
    given = own or (config.assumed_pixel if image.resolution is None else None)
    resolution = Resolution(given, given) if given else image.resolution
    if resolution is None:
        raise DatasetError(
            f"{image.location} has no pixel size, which data.pixel_size {length(working)} needs. Give it in the column "
            "pixel_size of the manifest, set data.assumed_pixel_size (for example '0.25 um') for all such images, or "
            "remove data.pixel_size and give fields of view in pixels"
        )
    return resolution


# Bytes of decoded PNG and JPEG files that each reading process keeps.
_CACHE = 512 * 10**6


class SampleReader:
    """Reads locations of samples; can be sent to another process, where it opens its own files."""

    def __init__(self, config: DataConfig, spec: LocationSpec) -> None:
        self._config, self.spec = config, spec
        # Separate, so that an image and its mask never push each other out while both are in use.
        self._images = ReaderCache(_CACHE, partial(open_stored, config=config), overviews=True)
        self._masks = ReaderCache(_CACHE // 3, partial(open_image, plane=config.plane))
        self._areas: dict[Sample, Area] = {}
        self._sources: dict[Sample, LabelSource] = {}

    def read(
        self, sample: Sample, cells: Sequence[tuple[int, int]], planned: Sequence[Sequence[Planned]] | None = None
    ) -> list[Location]:
        """The locations of some cells (row, col) of one image, by default of the spec's scales around each."""
        stored = self._images.get(sample.image)
        image = working(stored, self._config, sample.pixel_size)
        if sample not in self._sources:
            self._sources[sample] = open_source(mask_of(sample), image, self._config, self._masks.get)
        labels = LabelReader(self._sources[sample], area=self._area(sample, image))
        channels = select_channels(image, self._config.bands, self._config.in_channels)
        each = [None] * len(cells) if planned is None else planned
        return [
            read_location(image, labels, cell, self.spec, channels, windows)
            for cell, windows in zip(cells, each, strict=True)
        ]

    def _area(self, sample: Sample, image: ImageReader) -> Area:
        """Its region is read once; the reader changes, as the cache closes some."""
        if sample not in self._areas:
            self._areas[sample] = replace(sample_area(sample, self._config, image), data=None)
        nodata = self._config.use_nodata and image.masked
        return replace(self._areas[sample], data=image if nodata else None)

    def close(self) -> None:
        """Close all files of this process."""
        self._images.close()
        self._masks.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without what reads from the caches of this process."""
        return {**self.__dict__, "_sources": {}}


def open_sample(sample: Sample, config: DataConfig) -> ImageReader:
    """The image of a sample, opened on its own, as by `open_working`."""
    return open_working(sample.image, config, sample.pixel_size)


def sample_area(sample: Sample, config: DataConfig, image: ImageReader, tissue: Tissue = False) -> Area:
    """What counts of a sample: the region that is labelled, pixels that hold data, and tissue where asked for."""
    roi = None if sample.roi is None else Roi(sample.roi)
    return area_of(image, sample.name, roi=roi, nodata=config.use_nodata, tissue=tissue)


def open_labels(sample: Sample, config: DataConfig, *, tissue: Tissue = False) -> LabelReader:
    """The labels of a sample, opened on their own, on the grid of its image at the working resolution.

    Tissue alone counts where that is asked for: "auto" of slides, true of any image.
    """
    with ExitStack() as opened:
        stored = opened.enter_context(open_stored(sample.image, config))
        image = working(stored, config, sample.pixel_size)
        mask = cache(lambda path: opened.enter_context(open_image(path, plane=config.plane)))
        source = open_source(mask_of(sample), image, config, mask)
        area = sample_area(sample, config, image, tissue)
        if area.data is None:
            stored.close()
        return LabelReader(source, area=area, closing=opened.pop_all().close)


def mask_of(sample: Sample) -> Path:
    """The path of the mask, which must be there."""
    if sample.mask is None:
        raise DatasetError(f"the image {sample.image} has no mask")
    return sample.mask
