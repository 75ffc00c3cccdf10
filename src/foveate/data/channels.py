"""From the bands of a file to normalised channels of a network, and whether an image is as those of training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from foveate.data.config import DataConfig
from foveate.data.readers.pyramid import ImageReader, sampled
from foveate.data.sections import TrainedOn
from foveate.errors import DatasetError
from foveate.geometry import DoubleArray
from foveate.texts import length

_RANGES = {"uint8": 255.0, "uint16": 65535.0}
_FREQUENT, _LONE = 0.005, 2.0  # share of a value, and how many ranges of the others it lies away from them
_PERCENTILES = (0.5, 99.5)
# Values so many times as large, or so many times their own range away from those of training, have another unit.
_OTHER_UNIT, _APART = 8.0, 2.0
_NOTED, _OTHER_PIXELS = 1.5, 4.0  # ratios of pixel sizes
_COLOURS = {"red", "green", "blue", "nir", "alpha", "cyan", "magenta", "yellow", "black", "pan", "rededge", "swir"}


def select_channels(reader: ImageReader, bands: list[int] | None, in_channels: int) -> list[int]:
    """0-based indices into what `reader.read` returns, one per channel of the network.

    The bands are 1-based numbers, or None for all; the reader was opened with them, so that they count as in the file.

    Raises:
        DatasetError: when the bands are not there, or their number is not the network's.
    """
    if reader.palette:
        raise DatasetError(f"{reader.location} holds indices into a colour table; first run gdal_translate -expand rgb")
    wanted = bands or list(range(1, reader.bands + 1))
    if max(wanted) > reader.bands:
        raise DatasetError(f"{reader.location} has {reader.bands} bands; data.bands asks for {wanted}")
    if len(wanted) == 1 and in_channels == 3:
        return [wanted[0] - 1] * 3
    if len(wanted) != in_channels:
        raise DatasetError(
            f"{reader.location} has {len(wanted)} bands, but the network takes {in_channels} channels; choose bands "
            f"with data.bands, for example {list(range(1, in_channels + 1))}, or set data.in_channels to {len(wanted)}"
        )
    return [band - 1 for band in wanted]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Raw values to network input: divided by `scale`, minus `mean`, divided by `std` (per channel)."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: DataConfig, dtype: np.dtype[Any]) -> Self:
        """The normalisation for images of this type: without `data.scale` the type's range is taken, 1 for floats.

        Raises:
            DatasetError: when the type has no obvious range and `data.scale` is not given.
        """
        scale = config.scale or _RANGES.get(dtype.name) or (1.0 if dtype.kind == "f" else None)
        if scale is None:
            raise DatasetError(f"images of {dtype} have no obvious range; set data.scale to their largest value")
        return cls(scale, tuple(config.channel_mean), tuple(config.channel_std))

    def __call__(self, batch: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Raw values (..., C, h, w) of any real type as normalised floats, on the batch's device; in `out` where given.

        The two steps are joined into one multiplication and one addition. NaN, which floats have where there is no
        data, becomes the mean: it would spread over the whole patch.
        """
        dtype = batch.dtype if batch.is_floating_point() else torch.float32
        gain, offset = _gain_and_offset(self, dtype, batch.device)
        out = torch.empty_like(batch, dtype=dtype) if out is None else out
        if batch.device.type == "cpu":  # numbers instead of broadcast tensors: the same bits in a fifth of the time
            out.copy_(batch.contiguous())  # bytes in one piece become floats twice as fast
            for values, add, times in zip(out.unbind(-3), offset.flatten(), gain.flatten().tolist(), strict=True):
                torch.add(add, values, alpha=times, out=values)
        else:
            torch.addcmul(offset, out.copy_(batch), gain, out=out)
        return out.masked_fill_(out.isnan(), 0) if batch.is_floating_point() else out


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _gain_and_offset(how: Normalisation, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, 1, 1) each; kept, as bringing them to a device would wait for it at every batch."""
    gain = 1 / torch.tensor(how.std, dtype=torch.float64)
    offset = -torch.tensor(how.mean, dtype=torch.float64) * gain
    return (gain / how.scale)[:, None, None].to(device, dtype), offset[:, None, None].to(device, dtype)


class Fit(NamedTuple):
    """How a network sees an image."""

    channels: list[int]  # 0-based bands, one per channel of the network
    normalisation: Normalisation  # stored values to network input
    notes: tuple[str, ...] = ()  # what a user should know, in sentences


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
    note, ratio = _pixel_note(trained, kind) if config.pixel_size is None else (None, 1.0)
    if note is not None and ratio >= _OTHER_PIXELS:
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
    if config.mismatch == "scale":  # each image by itself
        scale = _matched_scale(trained, values)
        said = f"its values are divided by {scale:g}, so that the largest values match those of training"
        return Normalisation(scale, tuple(config.channel_mean), tuple(config.channel_std)), (said,)
    if same or config.scale is not None:
        normalisation = Normalisation.of(config, image.dtype)
        wrong = other_values(trained, values, normalisation.scale)
        if wrong is None:
            return normalisation, ()
    else:
        seen = Values.of_training(trained)
        told = f"they range from {values}, and those of training from {seen}"
        told = told if values and seen else "the range of the training images is not known"
        wrong = f"its values are {image.dtype}, and those of training {trained.dtype}; {told}"
    told = told_of_lone_value(image, channels, config)
    raise DatasetError(
        f"{image.location} differs from the images that the run was trained on: {wrong}. Set data.scale to the divisor "
        "of its values, such as data.scale=4095 for 12 bits; or data.mismatch=scale to scale each image to the range "
        f"of training; or data.mismatch=allow to use it as it is{told and f'. {told}'}"
    )


class Values(NamedTuple):
    """The values of some windows of an image: per channel (C,) percentiles."""

    low: DoubleArray
    high: DoubleArray

    @classmethod
    def of(cls, image: ImageReader, channels: Sequence[int]) -> Self | None:
        """Of windows spread over an image; of bytes their whole range, so that none are read.

        Windows that cannot be read are left out. None where nothing is known of a channel.
        """
        if image.dtype == np.uint8:
            return cls(np.zeros(len(channels)), np.full(len(channels), 255.0))
        pixels = sampled(image, channels)
        known = np.isfinite(pixels).any(axis=1).all()
        return cls(*np.nanpercentile(pixels, _PERCENTILES, axis=1)) if known else None

    @classmethod
    def of_training(cls, trained: TrainedOn) -> Self | None:
        """Those that were seen in training."""
        known = trained.low is not None and trained.high is not None
        return cls(np.array(trained.low), np.array(trained.high)) if known else None

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(max(np.abs(self.low).max(), np.abs(self.high).max()))

    def __str__(self) -> str:
        return f"{self.low.min():g} to {self.high.max():g}"


def lone_value(values: DoubleArray, least: float, apart: float) -> tuple[float, str] | None:
    """The least or largest of finite values where it may mean that there is none, and a sentence on it.

    At least that share of them has it, and it lies more than so many ranges of the others away from these.
    """
    for value in (values.min(initial=np.inf), values.max(initial=-np.inf)):
        others = values[values != value]
        if not others.size:
            continue
        low, high, share = others.min(), others.max(), 1 - others.size / values.size
        if share >= least and min(abs(value - low), abs(value - high)) > apart * (high - low):
            return float(value), f"{share:.1%} of the values are {value:g}, far from all others, {low:g} to {high:g}"
    return None


def lone_value_in(image: ImageReader, channels: Sequence[int], config: DataConfig) -> tuple[float, str] | None:
    """A value of an image that may mean that there is none: frequent, far from others, not 0 and not named."""
    if config.mismatch == "allow" or image.dtype == np.uint8:
        return None
    pixels = sampled(image, channels)
    lone = lone_value(pixels[np.isfinite(pixels)], _FREQUENT, _LONE)
    return lone if lone is not None and lone[0] else None


def told_of_lone_value(image: ImageReader, channels: Sequence[int], config: DataConfig) -> str:
    """What to tell of such a value of an image that is predicted; empty for nothing."""
    lone = lone_value_in(image, channels, config)
    return "" if lone is None else f"{lone[1]}; if this value means no data, set data.nodata={lone[0]:g}"


class Kind(NamedTuple):
    """What the header of an image says of the channels that are used."""

    dtype: np.dtype[Any]
    bands: int
    names: tuple[str, ...]
    scaling: tuple[tuple[float, float], ...]
    pixel_size: float | None

    @classmethod
    def of(cls, image: ImageReader, channels: Sequence[int]) -> Self:
        """Of an open image."""
        names = tuple(image.band_names[channel] if image.band_names else "" for channel in channels)
        scaling = tuple(image.scaling[channel] if image.scaling else (1.0, 0.0) for channel in channels)
        known = image.resolution
        size = None if known is None else (known.row * known.col) ** 0.5
        return cls(image.dtype, len(set(channels)), names, scaling, size)


def trained_on(kinds: Sequence[Kind], values: Sequence[Values | None], scale: float) -> TrainedOn:
    """What images have in common, from some values of them, and what these were divided by."""
    first, known = kinds[0], [each for each in values if each is not None]
    sizes = [kind.pixel_size for kind in kinds if kind.pixel_size is not None]
    return TrainedOn(
        dtype=first.dtype.name,
        scale=scale,
        bands=first.bands,
        names=tuple(each[0] if len(set(each)) == 1 else "" for each in zip(*(k.names for k in kinds), strict=True)),
        scaling=first.scaling,
        low=tuple(np.min([each.low for each in known], axis=0).tolist()) if known else None,
        high=tuple(np.max([each.high for each in known], axis=0).tolist()) if known else None,
        pixel_size=(min(sizes), max(sizes)) if len(sizes) == len(kinds) else None,
    )


def misfits(trained: TrainedOn, kind: Kind) -> Iterator[str]:
    """How the header of an image is unlike those of training, but for the type of its pixels."""
    if kind.bands != trained.bands:
        count = "one band" if kind.bands == 1 else f"{kind.bands} bands"
        yield f"it has {count}, and the run was trained on {trained.bands}; choose bands with data.bands"
    elif _are_others(trained.names, kind.names):
        was, is_now = (", ".join(name or "-" for name in names) for names in (trained.names, kind.names))
        yield f"its bands are {is_now}, and the run was trained on {was}; choose bands with data.bands"
    if not np.allclose(kind.scaling, trained.scaling, rtol=1e-6):
        own, others = (
            ", ".join(sorted({f"{gain:g} and {offset:g}" for gain, offset in scaling}))
            for scaling in (kind.scaling, trained.scaling)
        )
        yield f"its gain and offset are {own}, and those of training {others}"


def other_values(trained: TrainedOn, values: Values | None, scale: float) -> str | None:
    """How values, divided by a scale, are unlike those of training; None where they are alike or nothing is known."""
    seen = Values.of_training(trained)
    if seen is None or values is None or not (values.high > values.low).any():
        return None
    low, high = seen.low / trained.scale, seen.high / trained.scale
    largest, own = seen.largest / trained.scale, values.largest / scale
    gap = np.maximum(values.low / scale - high, low - values.high / scale)
    alike = 1 / _OTHER_UNIT <= own / largest <= _OTHER_UNIT if largest else True
    if alike and (gap <= _APART * (high - low)).all():
        return None
    return (
        f"its values range from {values} and are divided by {scale:g}; those of training ranged from {seen} and were "
        f"divided by {trained.scale:g}"
    )


def _matched_scale(trained: TrainedOn, values: Values | None) -> float:
    """What values are divided by so that the largest are those of training."""
    seen = Values.of_training(trained)
    if seen is None or values is None or not seen.largest or not values.largest:
        return trained.scale
    return values.largest / seen.largest * trained.scale


def _pixel_note(trained: TrainedOn, kind: Kind) -> tuple[str | None, float]:
    """What is to be said of its pixels' size, and by how much they are larger or smaller than those of training."""
    if trained.pixel_size is None or kind.pixel_size is None:
        return None, 1.0
    ratio = max(kind.pixel_size / trained.pixel_size[1], trained.pixel_size[0] / kind.pixel_size)
    seen = " to ".join(dict.fromkeys(map(length, trained.pixel_size)))
    note = f"its pixels are {length(kind.pixel_size)} wide, and those of training {seen}"
    return note if ratio >= _NOTED else None, ratio


def _are_others(trained: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a band is in another's place, or of another colour; other names may be those of a date."""
    before, now = ([name.lower().strip() for name in given] for given in (trained, names))
    return any(
        was and is_now and was != is_now and ({was, is_now} <= _COLOURS or was in now or is_now in before)
        for was, is_now in zip(before, now, strict=True)
    )
