"""Fingerprints: by what a later run sees whether the model and the image are still those of the blocks it finds."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import torch

from foveate.config_base import ConfigTree
from foveate.data.readers.base import ImageReader
from foveate.errors import ImageReadError
from foveate.geometry import Size, Window
from foveate.inference.predicting.pixels import PixelSource
from foveate.segmenter import FoveatedSegmenter

# Of a large file so many evenly spread pieces are read, the first and the last among them.
_PIECES, _PIECE_BYTES = 34, 1 << 16
# Of every image so many windows.
_WINDOWS, _WINDOW_SIDE = 5, 64
_DIGITS = 16


def model_tree(segmenter: FoveatedSegmenter) -> ConfigTree:
    """Everything of a segmenter that decides what it predicts."""
    return {
        "weights": _digest_of_weights(segmenter),
        # Addresses in memory, which some modules print, differ from run to run.
        "layers": _digest(re.sub(r"0x[0-9a-f]+", "", repr(segmenter)).encode()),
        "estimator": segmenter.estimator.tree(),
        "patch_size": segmenter.scales.patch_size,
        "fields_of_view": list(segmenter.scales.fields_of_view),
        "overview_downsample": segmenter.overview_downsample,
        "alignment": segmenter.alignment,
    }


def image_tree(source: PixelSource) -> ConfigTree:
    """Everything of an image that decides what is predicted for it, but not where it lies."""
    reader = source.reader
    place = reader.georeference
    normalisation = source.normalisation
    return {
        "size": [reader.size.height, reader.size.width],
        "bands": reader.bands,
        "dtype": reader.dtype.name,
        "content": _digest_of_file(reader) if reader.path.is_file() else "",
        "samples": _digest_of_samples(reader),
        "crs": place.crs if place else None,
        "transform": list(place.transform) if place else None,
        "channels": list(source.channels),
        "normalisation": [
            normalisation.scale,
            list(normalisation.mean),
            list(normalisation.std),
        ],
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _digest_of_weights(segmenter: FoveatedSegmenter) -> str:
    total = hashlib.sha256()
    for name, value in segmenter.state_dict().items():
        values = value.detach().cpu().contiguous()
        total.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        # As bytes, because NumPy lacks some of torch's types.
        total.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:_DIGITS]


def _digest_of_file(reader: ImageReader) -> str:
    """Of its length and of evenly spread pieces; a copy of the file has the same."""
    length = reader.path.stat().st_size
    total = hashlib.sha256(str(length).encode())
    with reader.path.open("rb") as file:
        for start in np.linspace(0, max(0, length - _PIECE_BYTES), _PIECES).astype(int):
            file.seek(int(start))
            total.update(file.read(_PIECE_BYTES))
    return total.hexdigest()[:_DIGITS]


def _digest_of_samples(reader: ImageReader) -> str:
    """Of the pixels of windows along the diagonal: all there is of a folder, a URL or an array.

    Some formats keep their pixels beside the file that is opened, so these count of a file too.
    """
    total = hashlib.sha256()
    side = Size(min(_WINDOW_SIDE, reader.size.height), min(_WINDOW_SIDE, reader.size.width))
    for share in np.linspace(0, 1, _WINDOWS):
        top, left = int(share * (reader.size.height - side.height)), int(share * (reader.size.width - side.width))
        total.update(_sample(reader, Window(top, left, side.height, side.width)))
    return total.hexdigest()[:_DIGITS]


def _sample(reader: ImageReader, window: Window) -> bytes:
    try:
        return np.ascontiguousarray(reader.read(window)).tobytes()
    except ImageReadError:  # what is done about a place that cannot be read is decided where it is predicted
        return b"unreadable"
