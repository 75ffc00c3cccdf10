"""Write a class map as OME-Zarr labels (NGFF 0.4): a folder of chunks with a pyramid, names and colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.sections import ClassConfig
from foveate.errors import ConfigError, OutputWriteError
from foveate.geometry import Size, Window, halvings
from foveate.tiff.raster import NODATA
from foveate.types import LabelArray

CHUNK = 1024
_VERSION = "0.4"  # the newest that QuPath and OMERO read too


class LabelsWriter:
    """The finest level of open labels; made by `open_labels`."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array = array
        self._path = path

    def write(self, window: Window, values: LabelArray) -> None:
        """Write (h, w) into a window.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        rows, cols = window.within(Window(0, 0, *self._array.shape))
        with _writing(self._path):
            self._array[rows, cols] = values


@contextmanager
def open_labels(
    path: Path,
    size: Size,
    classes: Sequence[ClassConfig],
    resolution: tuple[float, float] | None,
    facts: Mapping[str, int] | None = None,
) -> Iterator[LabelsWriter]:
    """Open labels for writing; coarser levels are added when the block ends well.

    Args:
        path: a new folder; the caller removes it when anything fails.
        size: of the image.
        classes: names and colours, in the order of the class ids.
        resolution: height and width of a pixel in metres, where known.
        facts: kept as attributes of Foveate's own, which other programs pass over.

    Raises:
        ConfigError: when the extra `zarr` is not installed.
        OutputWriteError: when writing fails.
    """
    sizes = halvings(size, CHUNK)
    with _writing(path):
        group = _new_group(path)
        arrays = [_new_array(group, str(level), level_size) for level, level_size in enumerate(sizes)]
    yield LabelsWriter(arrays[0], path)
    with _writing(path):
        for finer, coarser in pairwise(arrays):
            _halve(finer, coarser)
        # Last, so that what is not complete does not look like labels.
        group.attrs.update(_attributes(path.name.partition(".")[0], len(sizes), classes, resolution))
        if facts:
            group.attrs["foveate"] = dict(facts)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputWriteError(f"could not write {path}: {error}") from error


def check_installed() -> None:
    """Raise `ConfigError` when the extra `zarr` is not installed."""
    if find_spec("zarr") is None:
        raise ConfigError("inference.format 'ome-zarr' needs pip install 'foveate[zarr]'; or use 'geotiff'")


def _new_group(path: Path) -> Any:
    check_installed()
    import zarr  # noqa: PLC0415 - an extra

    return zarr.open_group(str(path), mode="w-", zarr_format=2)


def _new_array(group: Any, name: str, size: Size) -> Any:
    return group.create_array(
        name,
        shape=(size.height, size.width),
        chunks=(min(CHUNK, size.height), min(CHUNK, size.width)),
        dtype="uint8",
        fill_value=NODATA,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _halve(finer: Any, coarser: Any) -> None:
    """Chunk by chunk of the coarser level."""
    for top in range(0, coarser.shape[0], CHUNK):
        for left in range(0, coarser.shape[1], CHUNK):
            values = np.asarray(finer[2 * top : 2 * (top + CHUNK), 2 * left : 2 * (left + CHUNK)])
            coarser[top : top + CHUNK, left : left + CHUNK] = majority(values)


def majority(values: LabelArray) -> LabelArray:
    """The id that most of 2 x 2 pixels have, (h, w) to (ceil(h / 2), ceil(w / 2)); of equals that of the first pixel.

    An odd last row or column counts twice.
    """
    height, width = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2)), mode="edge")
    a, b, c, d = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
    without_a = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, without_a)


def _attributes(
    name: str, levels: int, classes: Sequence[ClassConfig], resolution: tuple[float, float] | None
) -> dict[str, Any]:
    unit = {"unit": "micrometer"} if resolution else {}
    finest = [side * 1e6 for side in resolution] if resolution else [1.0, 1.0]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [side * 2**level for side in finest]}],
        }
        for level in range(levels)
    ]
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    colors = [{"label-value": i, "rgba": [*item.rgb, 255]} for i, item in enumerate(classes)]
    names = [{"label-value": i, "name": item.name} for i, item in enumerate(classes)]
    return {
        "multiscales": [{"version": _VERSION, "name": name, "axes": axes, "datasets": datasets, "type": "mode"}],
        "image-label": {
            "version": _VERSION,
            "colors": [*colors, {"label-value": NODATA, "rgba": [0, 0, 0, 0]}],
            "properties": names,
        },
    }
