"""The area of an image, from what is wanted of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from foveate.data.area.area import Area
from foveate.data.area.geojson import load_region, region_file
from foveate.data.area.tissue import TissueMask, is_slide
from foveate.data.readers.base import ImageReader
from foveate.types import Coordinates, Tissue


class Roi(NamedTuple):
    """Where regions of interest are.

    Attributes:
        place: a GeoJSON file, or a folder with one of each image's name.
        coordinates: see `load_region`.
    """

    place: Path
    coordinates: Coordinates = "auto"


def area_of(
    image: ImageReader, stem: str, *, roi: Roi | None = None, nodata: bool = True, tissue: Tissue = False
) -> Area:
    """The pixels of an image that are looked at.

    Args:
        image: open for as long as the area is used.
        stem: its name, for regions in a folder.
        roi: its region of interest.
        nodata: leave out pixels that hold no data, by nodata value, mask or alpha.
        tissue: leave out glass. Where no tissue is found nothing is left out.

    Raises:
        ConfigError: when the region cannot be read or does not meet the image.
        ImageReadError: when the image is damaged.
    """
    region = None if roi is None else load_region(region_file(roi.place, stem), image, roi.coordinates)
    mask = TissueMask.of(image) if tissue_is_sought(image, tissue) else None
    return Area(
        image.size,
        region,
        image if nodata and image.masked else None,
        mask if mask is not None and mask.mask.any() else None,
    )


def tissue_is_sought(image: ImageReader, tissue: Tissue) -> bool:
    """Whether glass of an image is to be left out, where tissue is found on it."""
    return is_slide(image) if tissue == "auto" else tissue
