"""Images as networks see them: a value everywhere, and all at the pixel size `data.pixel_size`, or as they are."""

from __future__ import annotations

from pathlib import Path

from foveate.data.config import DataConfig
from foveate.data.fit import fit
from foveate.data.readers import ImageReader, Resolution, open_image
from foveate.data.readers.pyramid import PyramidReader
from foveate.data.readers.rescaled import FilledReader, resized, size_at
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
    reader = open_stored(image, config)
    try:
        return working(reader, config, pixel_size)
    except Exception:
        reader.close()
        raise


def open_stored(image: Path | str, config: DataConfig) -> ImageReader:
    """Open an image as it is stored, but for what the configuration says of bands, planes and missing values.

    Raises:
        ImageReadError: when there is no such file.
        UnsupportedImageError: when no reader can open it.
    """
    return open_image(image, bands=config.bands, plane=config.plane, nodata=config.nodata, use_nodata=config.use_nodata)


def working(reader: ImageReader, config: DataConfig, pixel_size: float | None = None) -> ImageReader:
    """An open image at the working resolution; what means nothing is replaced by the mean that is subtracted.

    Raises:
        DatasetError: when its pixel size is needed and not known, or its bands do not fit the network.
    """
    if config.working_pixel is not None:
        own = _resolution(reader, config, config.working_pixel, pixel_size)
        reader = resized(reader, size_at(reader, own, config.working_pixel), own)
    # A file that may lack values; of all others, the most, nothing need be asked.
    may_lack = reader.masked or reader.dtype.kind == "f"
    return FilledReader(reader, _neutral(reader, config)) if may_lack and isinstance(reader, PyramidReader) else reader


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
            f"{image.location} does not say how large its pixels are, which data.pixel_size {length(working)} needs; "
            f"give it in the manifest's column pixel_size, set data.assumed_pixel_size (for example '0.25 um') for all "
            f"such images, or give no data.pixel_size and fields of view in pixels"
        )
    return resolution
