"""Segment an image that is in memory: an array in, classes and probabilities out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from foveate.data import DataConfig, Resolution
from foveate.data.channels import Normalisation, Values, other_values, select_channels
from foveate.data.images import working
from foveate.data.readers.array import ArrayReader, ImageAxes
from foveate.data.readers.base import known_values
from foveate.errors import ConfigError, DatasetError, UnsupportedImageError
from foveate.geometry import IGNORE, Array, BoolArray, ByteArray, FloatArray, LabelArray, Window
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.source import PixelSource
from foveate.membership import Membership
from foveate.runs.folder import TrainedRun
from foveate.runs.predict import counted_in_passes
from foveate.texts import counted, metres

_AXES = ("HW", "HWC", "CHW")


class ArrayPrediction(NamedTuple):
    """The result of segmenting an array.

    Attributes:
        classes: (H, W) uint8, the id of the most probable class, and 255 where no band has a value (NaN, masked, or
            `data.nodata`); of overlapping classes (classes, H, W), 1 for yes.
        probabilities: (classes, H, W) float32, summing to one at each pixel unless classes overlap; NaN where the class
            is 255.
    """

    classes: LabelArray
    probabilities: FloatArray


def predict_array(
    run: TrainedRun,
    image: Any,
    *,
    axes: str | None = None,
    scale: float | None = None,
    pixel_size: str | None = None,
) -> ArrayPrediction:
    """Segment an image in memory; bands, normalisation and looks are those that the run was trained with.

    Args:
        run: the trained run.
        image: array or tensor (H, W), (H, W, C) or (C, H, W) of raw values, as in the files that the run was trained
            on. Where those hold integers, floats between 0 and 1 are taken for raw values that were divided by the
            range of that type. What a masked array masks has no value.
        axes: "HW", "HWC" or "CHW"; found by the number of bands when None.
        scale: what the values are divided by before mean and standard deviation are applied, instead of what is found.
        pixel_size: such as "0.5 um", for a run with `data.pixel_size`.

    Raises:
        DatasetError: when its bands or values are not as those of training, and no `scale` is given.
        UnsupportedImageError: when it is not one image.
        ConfigError: when `scale` is no number above 0.
    """
    data, membership = run.config.data, run.segmenter.membership
    array, hidden = (_ordered(part, axes, data) for part in _as_array(image))
    size = None if pixel_size is None else metres(pixel_size)
    # Runs of earlier versions do not say which: bytes.
    known = np.dtype(np.uint8 if data.trained_on is None else data.trained_on.dtype)
    if scale is not None and not 0 < scale < np.inf:
        raise ConfigError(f"scale={scale!r}: the number to divide the values by is above 0 and finite")
    divisor = scale or scale_of(_with_meaning(array, hidden, data.nodata), array.dtype, data, known)
    if hidden.any():
        array = np.where(hidden, np.nan, array.astype(np.result_type(array, np.float32)))
    reader = ArrayReader(array, "the array", resolution=None if size is None else Resolution(size, size))
    if isinstance(data.nodata, float):
        reader.also_nodata(data.nodata)
    channels = select_channels(reader, data.bands, data.in_channels)
    _check_bands(len(set(channels)), data)
    if scale is None:
        _check_values(reader, channels, data, divisor)
    normalisation = Normalisation(divisor, tuple(data.channel_mean), tuple(data.channel_std))
    at_work = working(reader, data.model_copy(update={"trained_on": None, "scale": divisor}))
    probabilities = _probabilities(run, PixelSource(at_work, channels, normalisation, run.device))
    if at_work.size != reader.size:
        probabilities = _resized(probabilities, reader.size.height, reader.size.width, membership)
    classes = _classes(probabilities, membership)
    if reader.masked and data.use_nodata:
        nothing = ~reader.valid(Window.of(reader.size))
        classes[..., nothing], probabilities[:, torch.from_numpy(nothing)] = IGNORE, torch.nan
    return ArrayPrediction(classes, probabilities.numpy())


def _check_bands(bands: int, data: DataConfig) -> None:
    """Refuse another number of bands than in training, as of files; one band would be repeated."""
    if data.trained_on is not None and bands != data.trained_on.bands and data.mismatch != "allow":
        raise DatasetError(
            f"the array has {counted(bands, 'band')}, and the run was trained on {data.trained_on.bands}; give the "
            "bands of the training images. Load the run with data.mismatch=allow to use the array as it is"
        )


def _check_values(reader: ArrayReader, channels: list[int], data: DataConfig, divisor: float) -> None:
    """Refuse values of another unit than those of training, as of files."""
    if data.trained_on is None or reader.dtype == np.uint8 or data.mismatch != "refuse":
        return
    wrong = other_values(data.trained_on, Values.of(reader, channels), divisor)
    if wrong is not None:
        raise DatasetError(
            f"the array differs from the images that the run was trained on: {wrong}. Give values as in the training "
            "images, or give scale=, the number to divide the values by"
        )


def _with_meaning(array: Array, hidden: BoolArray, nodata: float | str | None) -> Array:
    """The values that are neither hidden nor stand for none, in one row."""
    given = (nodata,) if isinstance(nodata, float) else ()
    known = known_values(array, None, (given,) * len(array))
    if not hidden.any():
        return array.ravel() if known is None else array[known]
    return array[~hidden if known is None else known & ~hidden]


def scale_of(values: Array, dtype: np.dtype[Any], data: DataConfig, trained_on: np.dtype[Any]) -> float:
    """What the values of an array are divided by, so that they mean what they meant in training.

    Args:
        values: those that mean something.
        dtype: of the array.
        data: of the run.
        trained_on: type of the images of training.
    """
    trained = Normalisation.of(data, trained_on).scale
    if dtype == trained_on or not values.size:
        return trained
    low, high = float(values.min()), float(values.max())
    if trained_on.kind == "f":
        if dtype.kind == "f":
            return trained
        raise _misfit(dtype, low, high, trained_on)
    limits = np.iinfo(trained_on)
    if dtype.kind == "f" and low >= 0 and high <= 1:
        return trained / float(limits.max)
    narrower = dtype.kind in "ui" and np.iinfo(dtype).max < limits.max
    if narrower or low < limits.min or high > limits.max:
        raise _misfit(dtype, low, high, trained_on)
    return trained


def _misfit(dtype: np.dtype[Any], low: float, high: float, trained_on: np.dtype[Any]) -> DatasetError:
    return DatasetError(
        f"the array holds {dtype} from {low:g} to {high:g} and the run was trained on {trained_on}; give values "
        f"as in the training images, or give scale=, the number to divide the values by"
    )


def _as_array(image: Any) -> tuple[Array, BoolArray]:
    """The values, and which of them a masked array hides."""
    hidden = np.broadcast_to(np.ma.getmask(image), np.shape(image))
    array: Array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.dtype.kind not in "uif":
        raise UnsupportedImageError(f"the array holds {array.dtype}; an image holds integers or floats")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return array, hidden


def _ordered(array: Array, axes: str | None, data: DataConfig) -> Array:
    """The array as (bands, H, W)."""
    axes = axes or _axes_of(array.shape, data)
    if axes not in _AXES or len(axes) != array.ndim:
        raise UnsupportedImageError(
            f"axes {axes!r} do not fit an array of shape {list(array.shape)}; an image is one of {', '.join(_AXES)}"
        )
    return np.moveaxis(array, -1, 0) if axes == "HWC" else array if axes == "CHW" else array[None]


def _axes_of(shape: Sequence[int], data: DataConfig) -> str:
    """The axes of a shape: the one that is as long as the run has bands is that of the bands."""
    if len(shape) == 2:
        return "HW"
    if len(shape) != 3 or 0 in shape:
        raise UnsupportedImageError(
            f"the array has shape {list(shape)}; give one image, (H, W), (H, W, C) or (C, H, W)"
        )
    if data.bands is not None:
        return "CHW" if ImageAxes.guessed(shape, "the array").band == 0 else "HWC"
    allowed = {data.in_channels} | ({1} if data.in_channels == 3 else set())
    first, last = shape[0] in allowed, shape[-1] in allowed
    if first != last:
        return "CHW" if first else "HWC"
    bands = " or ".join(map(str, sorted(allowed)))
    problem = "both outer axes have" if first else "no outer axis has"
    raise UnsupportedImageError(
        f"the array has shape {list(shape)} and the run takes {bands} bands: {problem} that length; "
        f'{"say" if first else "choose bands, as in array[..., :3], or say"} which is which with axes="HWC" or "CHW"'
    )


def _probabilities(run: TrainedRun, source: PixelSource) -> torch.Tensor:
    """(classes, H, W) at the working resolution, on the processor."""
    segmenter = ready_to_predict(run.segmenter, run.device)
    config = counted_in_passes(run, source, run.config.inference)
    result = torch.empty(len(run.config.data.classes), source.size.height, source.size.width)
    for block in finished_blocks(segmenter, source, config):
        rows = slice(block.window.top, block.window.bottom)
        result[:, rows, block.window.left : block.window.right] = segmenter.membership.probabilities(
            block.predicted().float(), dim=0
        ).cpu()
    return result


def _classes(probabilities: torch.Tensor, membership: Membership) -> ByteArray:
    decided = (probabilities > 0.5) if membership.overlapping else probabilities.argmax(dim=0)
    return decided.to(torch.uint8).numpy()


def _resized(probabilities: torch.Tensor, height: int, width: int, membership: Membership) -> torch.Tensor:
    resized = torch.nn.functional.interpolate(probabilities[None], (height, width), mode="bilinear")[0]
    return resized if membership.overlapping else resized / resized.sum(dim=0, keepdim=True)
