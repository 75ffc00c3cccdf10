"""`SampleReader`: locations of the images of a data set, through the caches of the process that reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from foveate.data.cache import ReaderCache
from foveate.data.channels import select_channels
from foveate.data.config import DataConfig
from foveate.data.labels import LabelReader
from foveate.data.locations import Location, LocationSpec, read_location
from foveate.data.manifest import Sample
from foveate.data.readers import open_image
from foveate.errors import DatasetError


class SampleReader:
    """Reads locations of samples; can be sent to another process, where it opens its own files.

    Args:
        config: bands, classes, label map and size of the cache.
        spec: what is read at a location.
    """

    def __init__(self, config: DataConfig, spec: LocationSpec) -> None:
        self._config, self._spec = config, spec
        # Separate, so that an image and its mask never push each other out while both are in use.
        self._images = ReaderCache(config.cache_mb * 10**6, keep_alpha=config.bands is not None)
        self._masks = ReaderCache(config.cache_mb * 10**6 // 3)

    def read(self, sample: Sample, cells: Iterable[tuple[int, int]]) -> list[Location]:
        """The locations of some cells of one image.

        Raises:
            ImageReadError: when a file is damaged.
            DatasetError: when bands or labels are not allowed, or there is no mask.
        """
        image = self._images.get(sample.image)
        labels = LabelReader(self._masks.get(mask_of(sample)), *label_arguments(self._config))
        channels = select_channels(image, self._config.bands, self._config.in_channels)
        return [read_location(image, labels, cell, self._spec, channels) for cell in cells]

    def close(self) -> None:
        """Close all files of this process."""
        self._images.close()
        self._masks.close()


def open_labels(sample: Sample, config: DataConfig) -> LabelReader:
    """The mask of a sample, opened on its own.

    Raises:
        ImageReadError: when there is no such file.
        DatasetError: when the sample has no mask, or it is not one band of integers.
    """
    return LabelReader(open_image(mask_of(sample)), *label_arguments(config))


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
