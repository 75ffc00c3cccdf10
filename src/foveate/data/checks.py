"""Checks of a whole data set before training begins: only headers are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.data.channels import select_channels
from foveate.data.config import DataConfig
from foveate.data.manifest import Sample
from foveate.data.sample_reader import open_labels, open_sample
from foveate.data.splits import some
from foveate.errors import DatasetError
from foveate.geometry import Size


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the headers say.

    Attributes:
        sizes: size of each image, in the order of the samples.
        dtype: type of the pixels of all of them.
        notes: what was taken for granted of labels, in sentences.
    """

    sizes: tuple[Size, ...]
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()


def inspect_samples(samples: Sequence[Sample], config: DataConfig) -> Inspection:
    """Open every image and mask and check that they fit each other and the configuration.

    Raises:
        ImageReadError: when a file is missing.
        UnsupportedImageError: when a file cannot be opened.
        DatasetError: when there is no image, or sizes, bands or types do not fit.
    """
    if not samples:
        raise DatasetError("the data set has no image")
    facts = [_inspect(sample, config) for sample in samples]
    first = facts[0][1]
    for sample, (_, dtype, _) in zip(samples, facts, strict=True):
        if dtype != first:
            raise DatasetError(
                f"{samples[0].image} holds {first} and {sample.image} {dtype}; a data set has one type: convert some"
            )
    said: dict[str, list[str]] = {}
    for sample, (_, _, notes) in zip(samples, facts, strict=True):
        for note in notes:
            said.setdefault(note, []).append(sample.name)
    notes = tuple(f"{some(who)}: {note}" for note, who in said.items())
    return Inspection(tuple(size for size, _, _ in facts), first, notes)


def _inspect(sample: Sample, config: DataConfig) -> tuple[Size, np.dtype[Any], tuple[str, ...]]:
    with open_sample(sample, config) as image:
        select_channels(image, config.bands, config.in_channels)
        notes: tuple[str, ...] = ()
        if sample.mask is not None:
            with open_labels(sample, config) as labels:
                notes = labels.notes
        return image.size, image.dtype, notes
