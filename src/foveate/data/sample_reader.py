"""`SampleReader`: locations of the images of a data set, through the caches of the process that reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from foveate.data.area.area import Area
from foveate.data.area.of_image import Roi, area_of
from foveate.data.cache import ReaderCache
from foveate.data.channels import select_channels
from foveate.data.config import DataConfig
from foveate.data.labels import LabelReader
from foveate.data.locations import Location, LocationSpec, read_location
from foveate.data.manifest import Sample
from foveate.data.readers import ImageReader, open_image
from foveate.data.working import open_working, working, working_labels
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
        self._images = ReaderCache(config.cache_mb * 10**6, keep_alpha=config.bands is not None, overviews=True)
        self._masks = ReaderCache(config.cache_mb * 10**6 // 3)
        self._areas: dict[str, Area] = {}

    def read(
        self, sample: Sample, cells: Sequence[tuple[int, int]], scales: Sequence[tuple[int, ...]] | None = None
    ) -> list[Location]:
        """The locations of some cells of one image.

        Args:
            sample: the image.
            cells: (row, col) of each.
            scales: which scales to read at each; those of the spec by default.

        Raises:
            ImageReadError: when a file is damaged.
            DatasetError: when bands or labels are not allowed, or there is no mask.
        """
        stored = self._images.get(sample.image)
        image = working(stored, self._config, sample.pixel_size)
        mask = working_labels(self._masks.get(mask_of(sample)), stored, self._config, sample.pixel_size)
        labels = LabelReader(mask, *label_arguments(self._config), area=self._area(sample, image))
        channels = select_channels(image, self._config.bands, self._config.in_channels)
        each = [self.spec.scales_read] * len(cells) if scales is None else scales
        return [
            read_location(image, labels, cell, self.spec, channels, chosen)
            for cell, chosen in zip(cells, each, strict=True)
        ]

    def _area(self, sample: Sample, image: ImageReader) -> Area:
        """Its region is read once; the reader changes, as the cache closes some."""
        if sample.name not in self._areas:
            self._areas[sample.name] = replace(sample_area(sample, self._config, image), data=None)
        nodata = self._config.use_nodata and image.masked
        return replace(self._areas[sample.name], data=image if nodata else None)

    def close(self) -> None:
        """Close all files of this process."""
        self._images.close()
        self._masks.close()


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
    """The mask of a sample, opened on its own, on the grid of its image at the working resolution.

    Args:
        sample: the image.
        config: says classes, working resolution and whether pixels without data count.
        tissue: count tissue only: "auto" of slides, true of any image.

    Raises:
        ImageReadError: when there is no such file.
        DatasetError: when the sample has no mask, it is not one band of integers, or the image's pixel size is needed
            and not known.
    """
    with ExitStack() as opened:
        stored = opened.enter_context(open_image(sample.image, keep_alpha=config.bands is not None))
        mask = opened.enter_context(open_image(mask_of(sample)))
        mask = working_labels(mask, stored, config, sample.pixel_size)
        area = sample_area(sample, config, working(stored, config, sample.pixel_size), tissue)
        labels = LabelReader(mask, *label_arguments(config), area=area, closing=stored.close)
        if area.data is None:
            stored.close()
        opened.pop_all()
        return labels


def mask_of(sample: Sample) -> Path:
    """The path of the mask.

    Raises:
        DatasetError: when the sample has none.
    """
    if sample.mask is None:
        raise DatasetError(f"the image {sample.image} has no mask")
    return sample.mask


def label_arguments(config: DataConfig) -> tuple[int, int, dict[int, int] | None]:
    """What `LabelReader` takes after the reader."""
    return len(config.classes), config.ignore_index, config.label_map
