"""Whether an image is of the kind that a run was trained on, and what is done when it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.data.channels import Normalisation, select_channels
from foveate.data.config import DataConfig
from foveate.data.readers.pyramid import ImageReader
from foveate.data.sections import TrainedOn
from foveate.errors import DatasetError, ImageReadError
from foveate.geometry import Size, Window
from foveate.texts import length

_WINDOWS, _SIDE = 16, 64  # of an image that are looked at
_PERCENTILES = (0.5, 99.5)
# Values so many times as large, or so many times their own range away from those of training, have another unit.
_OTHER_UNIT, _APART = 8.0, 2.0
_NOTED, _OTHER_PIXELS = 1.5, 4.0  # ratios of pixel sizes
_FREQUENT, _LONE = 0.005, 2.0  # share of a value, and how many ranges of the others it lies away from them
_COLOURS = {"red", "green", "blue", "nir", "alpha", "cyan", "magenta", "yellow", "black", "pan", "rededge", "swir"}


class Fit(NamedTuple):
    """How a network sees an image.

    Attributes:
        channels: 0-based bands, one per channel of the network.
        normalisation: stored values to network input.
        notes: what a user should know, in sentences.
    """

    channels: list[int]
    normalisation: Normalisation
    notes: tuple[str, ...] = ()


def fit(image: ImageReader, config: DataConfig) -> Fit:
    """How a run sees an image: as those it was trained on, as far as it is of their kind.

    Args:
        image: open; some of its pixels are read unless it holds bytes, as those of training.
        config: of the run; `mismatch` says what is done with an image of another kind.

    Raises:
        DatasetError: when its bands do not fit the network, or it is of another kind and that was not allowed.
    """
    channels = select_channels(image, config.bands, config.in_channels)
    trained = config.trained_on
    notes = tuple(image.remarks)
    if trained is None:
        return Fit(channels, Normalisation.of(config, image.dtype), notes)
    kind, location = Kind.of(image, channels), image.location
    wrong = list(misfits(trained, kind))
    note = pixel_note(trained, kind) if config.pixel_size is None else None
    if note is not None and pixel_ratio(trained, kind) >= _OTHER_PIXELS:
        wrong.append(f"{note} (train with data.pixel_size to use images of any pixel size)")
    elif note is not None:
        notes = (*notes, note)
    if wrong and config.mismatch != "allow":
        raise DatasetError(
            f"{location} differs from the images that the run was trained on: {'; '.join(wrong)}. Set "
            "data.mismatch=allow to use it as it is"
        )
    normalisation, said = _normalisation(image, config, trained, channels)
    return Fit(channels, normalisation, (*notes, *wrong, *said))


def _normalisation(
    image: ImageReader, config: DataConfig, trained: TrainedOn, channels: list[int]
) -> tuple[Normalisation, tuple[str, ...]]:
    same = image.dtype.name == trained.dtype
    if (same and image.dtype == np.uint8) or config.mismatch == "allow":
        return Normalisation.of(config, image.dtype), ()
    values = Values.of(image, channels)
    if config.mismatch == "scale":
        return _scaled(config, trained, values)
    if not same and config.scale is None:
        found = f"its values are {image.dtype}, and those of training {trained.dtype}"
        raise _unlike(image, f"{found}; {_ranges(trained, values)}")
    normalisation = Normalisation.of(config, image.dtype)
    found_values = other_values(trained, values, normalisation.scale)
    if found_values is not None:
        raise _unlike(image, found_values)
    return normalisation, ()


def _scaled(config: DataConfig, trained: TrainedOn, values: Values) -> tuple[Normalisation, tuple[str, ...]]:
    """With values brought to the range of those of training, each image by itself."""
    scale = matched_scale(trained, values, trained.scale)
    normalisation = Normalisation(scale, tuple(config.channel_mean), tuple(config.channel_std))
    return normalisation, (f"its values are divided by {scale:g}, so that the largest values match those of training",)


def _ranges(trained: TrainedOn, values: Values) -> str:
    if trained.low is None or trained.high is None or not values.low.size:
        return "the range of the training images is not known"
    seen = f"{min(trained.low):g} to {max(trained.high):g}"
    return f"they range from {values.low.min():g} to {values.high.max():g}, and those of training from {seen}"


def _unlike(image: ImageReader, what: str) -> DatasetError:
    return DatasetError(
        f"{image.location} differs from the images that the run was trained on: {what}. Set data.scale to the divisor "
        "of its values, such as data.scale=4095 for 12 bits; or data.mismatch=scale to scale each image to the range "
        "of training; or data.mismatch=allow to use it as it is"
    )


class Values(NamedTuple):
    """The values of some windows of an image: per channel (C,) percentiles; empty where none is known."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, image: ImageReader, channels: Sequence[int]) -> Values:
        """Of windows spread over an image; of bytes their whole range, so that none are read.

        Windows that cannot be read are left out.
        """
        if image.dtype == np.uint8:
            return cls(np.zeros(len(channels)), np.full(len(channels), 255.0))
        parts = [part for window in _spread(image.size) for part in _read(image, channels, window)]
        pixels = np.concatenate(parts, axis=1) if parts else np.full((len(channels), 1), np.nan)
        if not np.isfinite(pixels).any(axis=1).all():
            return cls(np.empty(0), np.empty(0))
        low, high = np.nanpercentile(pixels, _PERCENTILES, axis=1)
        return cls(low, high)

    @property
    def largest(self) -> float:
        """The largest magnitude; 0 where none is known."""
        return float(max(np.abs(self.low).max(initial=0), np.abs(self.high).max(initial=0)))


def _spread(size: Size) -> Iterator[Window]:
    """Windows on a regular grid."""
    count = round(_WINDOWS**0.5)
    height, width = min(_SIDE, size.height), min(_SIDE, size.width)
    for row in np.linspace(0, size.height - height, count).astype(int):
        for col in np.linspace(0, size.width - width, count).astype(int):
            yield Window(int(row), int(col), height, width)


def _read(image: ImageReader, channels: Sequence[int], window: Window) -> Iterator[NDArray[np.float64]]:
    try:
        pixels, known = image.read_known(window)
    except ImageReadError:  # what is done about a place that cannot be read is decided where it is used
        return
    values = pixels.astype(np.float64) if known is None else np.where(known, pixels, np.nan)
    yield values[list(channels)].reshape(len(channels), -1)


class Kind(NamedTuple):
    """What the header of an image says of the channels that are used."""

    dtype: np.dtype[Any]
    bands: int
    names: tuple[str, ...]
    scaling: tuple[tuple[float, float], ...]
    pixel_size: float | None

    @classmethod
    def of(cls, image: ImageReader, channels: Sequence[int]) -> Kind:
        """Of an open image."""
        names = tuple(image.band_names[channel] if image.band_names else "" for channel in channels)
        scaling = tuple(image.scaling[channel] if image.scaling else (1.0, 0.0) for channel in channels)
        known = image.resolution
        size = None if known is None else (known.row * known.col) ** 0.5
        return cls(image.dtype, len(set(channels)), names, scaling, size)


def trained_on(kinds: Sequence[Kind], values: Sequence[Values], scale: float) -> TrainedOn:
    """What images have in common.

    Args:
        kinds: of all images.
        values: of some of them.
        scale: what values were divided by.
    """
    first, known = kinds[0], [each for each in values if each.low.size]
    sizes = [kind.pixel_size for kind in kinds if kind.pixel_size is not None]
    return TrainedOn(
        dtype=first.dtype.name,
        scale=scale,
        bands=first.bands,
        names=tuple(_agreed([kind.names[i] for kind in kinds]) for i in range(len(first.names))),
        scaling=first.scaling,
        low=tuple(np.min([each.low for each in known], axis=0).tolist()) if known else None,
        high=tuple(np.max([each.high for each in known], axis=0).tolist()) if known else None,
        pixel_size=(min(sizes), max(sizes)) if len(sizes) == len(kinds) else None,
    )


def refuse_lone_value(image: ImageReader, channels: Sequence[int], config: DataConfig) -> None:
    """Refuse to train on a value that seems to mean that there is none, unless `mismatch` allows all.

    Raises:
        DatasetError: naming it and the settings.
    """
    found = None if config.mismatch == "allow" else _lone_value(image, channels)
    if found is not None:
        raise DatasetError(
            f"{found[1]}. If this value means no data, set data.nodata={found[0]:g}; if it is an ordinary value, set "
            "data.mismatch=allow"
        )


def _lone_value(image: ImageReader, channels: Sequence[int]) -> tuple[float, str] | None:
    """A value that may mean that there is none, though the file does not say so: frequent, far from others, not 0."""
    if image.dtype == np.uint8:
        return None
    parts = [part for window in _spread(image.size) for part in _read(image, channels, window)]
    pixels = np.concatenate(parts, axis=1).ravel() if parts else np.empty(0)
    pixels = np.sort(pixels[np.isfinite(pixels)])
    for end, others in ((pixels[:1], pixels[pixels > pixels[:1]]), (pixels[-1:], pixels[pixels < pixels[-1:]])):
        if not others.size:
            continue
        value, low, high = float(end[0]), float(others[0]), float(others[-1])
        share = 1 - others.size / pixels.size
        if value and share >= _FREQUENT and min(abs(value - low), abs(value - high)) > _LONE * (high - low):
            where = f"{share:.1%} of the values of {image.location}"
            return value, f"{where} are {value:g}, far from all other values, {low:g} to {high:g}"
    return None


def _agreed(names: Sequence[str]) -> str:
    return names[0] if len(set(names)) == 1 else ""


def misfits(trained: TrainedOn, kind: Kind) -> Iterator[str]:
    """How the header of an image is unlike those of training, but for the type of its pixels."""
    if kind.bands != trained.bands:
        yield f"it has {_bands(kind.bands)}, and the run was trained on {trained.bands}; choose bands with data.bands"
    elif _are_others(trained.names, kind.names):
        was, is_now = _named(trained.names), _named(kind.names)
        yield f"its bands are {is_now}, and the run was trained on {was}; choose bands with data.bands"
    if not np.allclose(kind.scaling, trained.scaling, rtol=1e-6):
        yield (f"its gain and offset are {_pairs(kind.scaling)}, and those of training {_pairs(trained.scaling)}")


def pixel_ratio(trained: TrainedOn, kind: Kind) -> float:
    """How many times as large its pixels are as those of training, or those of training as its own; 1 within them."""
    if trained.pixel_size is None or kind.pixel_size is None:
        return 1.0
    low, high = trained.pixel_size
    return max(kind.pixel_size / high, low / kind.pixel_size, 1.0)


def other_values(trained: TrainedOn, values: Values, scale: float) -> str | None:
    """How values, divided by a scale, are unlike those of training; None where they are alike or nothing is known."""
    if trained.low is None or trained.high is None or not values.low.size or not (values.high > values.low).any():
        return None
    low, high = np.array(trained.low) / trained.scale, np.array(trained.high) / trained.scale
    largest, own = max(np.abs(low).max(), np.abs(high).max()), values.largest / scale
    gap = np.maximum(values.low / scale - high, low - values.high / scale)
    alike = 1 / _OTHER_UNIT <= own / largest <= _OTHER_UNIT if largest else True
    if alike and (gap <= _APART * (high - low)).all():
        return None
    return (
        f"its values range from {values.low.min():g} to {values.high.max():g} and are divided by {scale:g}; those of "
        f"training ranged from {min(trained.low):g} to {max(trained.high):g} and were divided by {trained.scale:g}"
    )


def matched_scale(trained: TrainedOn, values: Values, scale: float) -> float:
    """What values are divided by so that the largest are those of training."""
    if trained.low is None or trained.high is None or not values.largest:
        return scale
    largest = max(np.abs(trained.low).max(), np.abs(trained.high).max()) / trained.scale
    return float(values.largest / largest) if largest else scale


def pixel_note(trained: TrainedOn, kind: Kind) -> str | None:
    """What is to be said of its pixels' size."""
    if pixel_ratio(trained, kind) < _NOTED or trained.pixel_size is None or kind.pixel_size is None:
        return None
    low, high = (length(size) for size in trained.pixel_size)
    seen = low if low == high else f"{low} to {high}"
    return f"its pixels are {length(kind.pixel_size)} wide, and those of training {seen}"


def _are_others(trained: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a band is in another's place, or of another colour; other names may be those of a date."""
    for was, is_now in zip(_plain(trained), _plain(names), strict=True):
        if was and is_now and was != is_now:
            known = was in _COLOURS and is_now in _COLOURS
            if known or was in _plain(names) or is_now in _plain(trained):
                return True
    return False


def _plain(names: Sequence[str]) -> list[str]:
    return [name.lower().strip() for name in names]


def _named(names: Sequence[str]) -> str:
    return ", ".join(name or "-" for name in names)


def _bands(count: int) -> str:
    return "one band" if count == 1 else f"{count} bands"


def _pairs(scaling: Sequence[tuple[float, float]]) -> str:
    return ", ".join(sorted({f"{gain:g} and {offset:g}" for gain, offset in scaling}))
