"""Images at the working resolution: as they are, or as if all had pixels of `data.pixel_size`."""

from __future__ import annotations

from pathlib import Path

from foveate.data.config import DataConfig
from foveate.data.readers import ImageReader, Resolution, open_image
from foveate.data.readers.rescaled import resized, size_at
from foveate.errors import DatasetError
from foveate.units import length


def open_working(image: Path | str, config: DataConfig, pixel_size: float | None = None) -> ImageReader:
    """Open an image as training, evaluation and prediction see it.

    Args:
        image: a file or URL.
        config: says which bands are used, and the pixel size of the working resolution.
        pixel_size: that of the image in metres, instead of what the file says.

    Raises:
        ImageReadError: when there is no such file.
        UnsupportedImageError: when no reader can open it.
        DatasetError: when its pixel size is needed and not known.
    """
    reader = open_image(image, keep_alpha=config.bands is not None)
    try:
        return working(reader, config, pixel_size)
    except Exception:
        reader.close()
        raise


def working(reader: ImageReader, config: DataConfig, pixel_size: float | None = None) -> ImageReader:
    """An open image at the working resolution.

    Raises:
        DatasetError: when its pixel size is needed and not known.
    """
    if config.working_pixel is None:
        return reader
    own = _resolution(reader, config, config.working_pixel, pixel_size)
    return resized(reader, size_at(reader, own, config.working_pixel), own)


def _resolution(image: ImageReader, config: DataConfig, working: float, own: float | None) -> Resolution:
    """An image's resolution: as given for it, as the file says, or as assumed, in this order."""
    given = own or (config.assumed_pixel if image.resolution is None else None)
    resolution = Resolution(given, given) if given else image.resolution
    if resolution is None:
        raise DatasetError(
            f"{image.location} does not say how large its pixels are, which data.pixel_size {length(working)} needs; "
            f"give it in the manifest's column pixel_size, set data.assumed_pixel_size (for example '0.25 um') for all "
            f"such images, or give no data.pixel_size and fields of view in pixels"
        )
    return resolution
