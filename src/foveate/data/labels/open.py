"""The one place that opens the labels of an image, whatever they are stored as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from foveate.data.config import DataConfig
from foveate.data.labels.overlapping import CLASS, OverlappingLabels, YesNoLabels, YesNoTable, overlapping_source
from foveate.data.labels.place import placement_of
from foveate.data.labels.raster import RasterLabels
from foveate.data.labels.reader import LabelReader, LabelSource
from foveate.data.labels.shapes import VECTORS
from foveate.data.labels.table import ColourTable, LabelTable, Meaning
from foveate.data.labels.vector import VectorLabels
from foveate.data.readers import ImageReader, open_image
from foveate.errors import DatasetError
from foveate.membership import Membership


def open_source(
    place: Path, image: ImageReader, config: DataConfig, mask: Callable[[Path], ImageReader]
) -> LabelSource:
    """The labels in a file, on the grid of an image; nothing of it is kept open but by `mask`.

    Args:
        place: the file.
        image: at the working resolution; only its size, place and pixel size are asked for.
        config: says what values mean.
        mask: opens a mask, or gives an open one; asked again for every read, so that a cache may close it.

    Raises:
        ImageReadError: when there is no such file.
        DatasetError: when the file cannot hold the labels of this image.
    """
    if place.suffix.lower() in VECTORS:
        return VectorLabels(place, image, config)
    if config.overlapping:
        return overlapping_source(place, image, config, mask)
    if CLASS in str(place):
        raise DatasetError(f"{place} names one mask for each class, which takes data.overlapping=true")
    placed = placement_of(image, mask(place))
    meaning = meaning_of(config)
    return RasterLabels(lambda: mask(place), meaning, placed, size=image.size, use_nodata=config.use_nodata)


def class_map(path: Path, classes: int, membership: Membership) -> LabelReader:
    """A class map that prediction or evaluation wrote, read as labels; closing it closes the file.

    Raises:
        ImageReadError: when there is no such file.
    """
    reader = open_image(path)
    source: LabelSource = RasterLabels(reader, LabelTable(classes, membership.ignore_index))
    if membership.overlapping:
        parts = [YesNoLabels(reader, YesNoTable(classes, number)) for number in range(classes)]
        source = OverlappingLabels(parts, str(path))
    return LabelReader(source, closing=reader.close)


def meaning_of(config: DataConfig) -> Meaning:
    """What the pixels of masks mean."""
    if config.mask_colours is None:
        return LabelTable(len(config.classes), config.ignore_index, config.label_map, rounded=config.round_labels)
    return ColourTable(config.mask_colours, config.ignore_index, rounded=config.round_labels)
