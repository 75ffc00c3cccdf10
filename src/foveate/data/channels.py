"""From the bands of a file to the channels of a network, and from raw values to normalised ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.data.config import DataConfig
from foveate.data.readers.pyramid import ImageReader
from foveate.errors import DatasetError

_RANGES = {"uint8": 255.0, "uint16": 65535.0}


def select_channels(reader: ImageReader, bands: list[int] | None, in_channels: int) -> list[int]:
    """0-based indices into what `reader.read` returns, one per channel.

    Args:
        reader: an open image; opened with `keep_alpha` when bands are given, so that they count as in the file.
        bands: 1-based numbers, or None for all.
        in_channels: channels the network takes.

    Raises:
        DatasetError: when the bands are not there, or their number is not the network's.
    """
    if reader.palette:
        raise DatasetError(f"{reader.location} holds indices into a colour table; convert it to colours first")
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
    def of(cls, config: DataConfig, dtype: np.dtype[Any]) -> Normalisation:
        """The normalisation for images of this type: without `data.scale` the type's range is taken, 1 for floats.

        Raises:
            DatasetError: when the type has no obvious range and `data.scale` is not given.
        """
        scale = config.scale or _RANGES.get(dtype.name) or (1.0 if dtype.kind == "f" else None)
        if scale is None:
            raise DatasetError(f"images of {dtype} have no obvious range; set data.scale to their largest value")
        return cls(scale, tuple(config.channel_mean), tuple(config.channel_std))

    def __call__(self, batch: Tensor, out: Tensor | None = None) -> Tensor:
        """Normalise a batch (..., C, h, w)."""
        return normalise(batch, self.scale, self.mean, self.std, out)


def normalise(
    batch: Tensor, scale: float, mean: tuple[float, ...], std: tuple[float, ...], out: Tensor | None = None
) -> Tensor:
    """Raw values (..., C, h, w) of any real type as normalised floats, on the batch's device; in `out` where given.

    The two steps are joined into one multiplication and one addition. NaN, which floats have where there is no data,
    becomes the mean: it would spread over the whole patch.
    """
    dtype = batch.dtype if batch.is_floating_point() else torch.float32
    gain, offset = _gain_and_offset(scale, mean, std, dtype, batch.device)
    out = torch.empty_like(batch, dtype=dtype) if out is None else out
    if batch.device.type == "cpu":  # numbers instead of broadcast tensors: the same bits in a fifth of the time
        out.copy_(batch.contiguous())  # bytes in one piece become floats twice as fast as those of a part of an image
        for values, add, times in zip(out.unbind(-3), offset.flatten(), gain.flatten().tolist(), strict=True):
            torch.add(add, values, alpha=times, out=values)
    else:
        torch.addcmul(offset, out.copy_(batch), gain, out=out)
    return out.masked_fill_(out.isnan(), 0) if batch.is_floating_point() else out


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _gain_and_offset(
    scale: float, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(C, 1, 1) each; kept, as bringing them to a device would wait for it at every batch."""
    gain = 1 / torch.tensor(std, dtype=torch.float64)
    offset = -torch.tensor(mean, dtype=torch.float64) * gain
    return (gain / scale)[:, None, None].to(device, dtype), offset[:, None, None].to(device, dtype)
