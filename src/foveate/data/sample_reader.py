"""`SampleReader`: locations of the images of a data set, through the caches of the process that reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from foveate.data.area.area import Area
from foveate.data.area.of_image import Roi, area_of
from foveate.data.cache import ReaderCache
from foveate.data.channels import select_channels
from foveate.data.config import DataConfig
from foveate.data.labels import LabelReader, LabelSource, open_source
from foveate.data.locations import Location, LocationSpec, read_location
from foveate.data.manifest import Sample
from foveate.data.nesting import Planned
from foveate.data.readers import ImageReader, open_image
from foveate.data.working import open_stored, open_working, working
from foveate.errors import DatasetError
from foveate.types import Tissue


class SampleReader:
    """Reads locations of samples; can be sent to another process, where it opens its own files.

    Args:
        config: bands, classes, label map and size of the cache.
        spec: what is read at a location.

    Attributes:
        spec: as given.
    """

    def __init__(self, config: DataConfig, spec: LocationSpec) -> None:
        self._config, self.spec = config, spec
        # Separate, so that an image and its mask never push each other out while both are in use.
        self._images = ReaderCache(config.cache_mb * 10**6, partial(open_stored, config=config), overviews=True)
        self._masks = ReaderCache(config.cache_mb * 10**6 // 3, partial(open_image, plane=config.plane))
        self._areas: dict[Sample, Area] = {}
        self._sources: dict[Sample, LabelSource] = {}

    def read(
        self, sample: Sample, cells: Sequence[tuple[int, int]], planned: Sequence[Sequence[Planned]] | None = None
    ) -> list[Location]:
        """The locations of some cells of one image.

        Args:
            sample: the image.
            cells: (row, col) of each.
            planned: the windows to read at each; by default those of the spec's scales around it.

        Raises:
            ImageReadError: when a file is damaged.
            DatasetError: when bands or labels are not allowed, or there is no mask.
        """
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
    """The image of a sample, opened on its own, at the working resolution.

    Raises:
        ImageReadError: when there is no such file.
        UnsupportedImageError: when no reader can open it.
        DatasetError: when its pixel size is needed and not known.
    """
    return open_working(sample.image, config, sample.pixel_size)


def sample_area(sample: Sample, config: DataConfig, image: ImageReader, tissue: Tissue = False) -> Area:
    """What counts of a sample: the region that is labelled, pixels that hold data, and tissue where asked for.

    Raises:
        ConfigError: when the region cannot be read or does not meet the image.
    """
    roi = None if sample.roi is None else Roi(sample.roi)
    return area_of(image, sample.name, roi=roi, nodata=config.use_nodata, tissue=tissue)


def open_labels(sample: Sample, config: DataConfig, *, tissue: Tissue = False) -> LabelReader:
    """The labels of a sample, opened on their own, on the grid of its image at the working resolution.

    Args:
        sample: the image.
        config: says classes, working resolution and whether pixels without data count.
        tissue: count tissue only: "auto" of slides, true of any image.

    Raises:
        ImageReadError: when there is no such file.
        DatasetError: when the sample has no labels, they do not fit its image, or the image's pixel size is needed and
            not known.
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
    """The path of the mask.

    Raises:
        DatasetError: when the sample has none.
    """
    if sample.mask is None:
        raise DatasetError(f"the image {sample.image} has no mask")
    return sample.mask
