"""Checks of a whole data set before training begins: only headers are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from foveate.data.area.area import Region
from foveate.data.channels import select_channels
from foveate.data.config import DataConfig
from foveate.data.fit import Kind
from foveate.data.images import open_labels, open_sample
from foveate.data.labels import RasterLabels
from foveate.data.manifest import Sample
from foveate.data.splits import some
from foveate.errors import DatasetError
from foveate.geometry import Size
from foveate.types import IntArray


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the headers say.

    Attributes:
        sizes: size of each image, in the order of the samples.
        dtype: type of the pixels of all of them.
        notes: what was taken for granted of images and labels, in sentences.
        regions: of each image what is labelled, None for all of it.
        kinds: of each image what its header says of the bands that are used.
    """

    sizes: tuple[Size, ...]
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()
    regions: tuple[Region | None, ...] = ()
    kinds: tuple[Kind, ...] = ()


class _Facts(NamedTuple):
    """Of one image and its labels."""

    size: Size
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()
    colours: IntArray | None = None
    region: Region | None = None
    kind: Kind | None = None


def inspect_samples(samples: Sequence[Sample], config: DataConfig) -> Inspection:
    """Open every image and mask and check that they fit each other and the configuration.

    Raises:
        ImageReadError: when a file is missing.
        UnsupportedImageError: when a file cannot be opened.
        DatasetError: when there is no image, or sizes, bands or types do not fit.
    """
    if not samples:
        raise DatasetError("the data set has no images")
    facts = [_inspect(sample, config) for sample in samples]
    first = facts[0].dtype
    for sample, fact in zip(samples, facts, strict=True):
        if fact.dtype != first:
            raise DatasetError(
                f"{samples[0].image} holds {first} and {sample.image} holds {fact.dtype}; convert some images, so that "
                "all have one type"
            )
    _check_colour_tables(samples, facts, config)
    notes = (*gathered((s.name, fact.notes) for s, fact in zip(samples, facts, strict=True)), *_shared(samples, facts))
    kinds = tuple(fact.kind for fact in facts if fact.kind is not None)
    return Inspection(tuple(fact.size for fact in facts), first, notes, tuple(fact.region for fact in facts), kinds)


def gathered(notes: Iterable[tuple[str, Iterable[str]]]) -> tuple[str, ...]:
    """What is noted of each of some images, each note once, with the first few of the images it is about."""
    said: dict[str, list[str]] = {}
    for name, lines in notes:
        for line in lines:
            said.setdefault(line, []).append(name)
    return tuple(f"{some(who)}: {line}" for line, who in said.items())


def _shared(samples: Sequence[Sample], facts: Sequence[_Facts]) -> Iterator[str]:
    """Regions of one image in different splits that overlap."""
    known = [(sample, fact.region) for sample, fact in zip(samples, facts, strict=True) if fact.region is not None]
    for (one, region), (other, its) in combinations(known, 2):
        if one.image == other.image and one.split != other.split and (pixels := region.shared_with(its)) >= 1:
            yield (
                f"the regions of {one.name} ({one.split}) and {other.name} ({other.split}) overlap in {pixels:,.0f} "
                "pixels, which would be used for training and for scores"
            )


def _inspect(sample: Sample, config: DataConfig) -> _Facts:
    with open_sample(sample, config) as image:
        kind = Kind.of(image, select_channels(image, config.bands, config.in_channels))
        if sample.mask is None:
            return _Facts(image.size, image.dtype, image.remarks, kind=kind)
        with open_labels(sample, config) as labels:
            colours = labels.source.colours if isinstance(labels.source, RasterLabels) else None
            notes = (*image.remarks, *labels.notes)
            return _Facts(image.size, image.dtype, notes, colours, labels.region, kind)


def _check_colour_tables(samples: Sequence[Sample], facts: Sequence[_Facts], config: DataConfig) -> None:
    """Refuse masks whose indices do not mean what their colours say, unless the configuration says what counts."""
    if config.colors is not None or config.label_map is not None:
        return
    classes = [item.rgb for item in config.classes]
    remedy = "map the colours with data.colors=true, or use the indices as class ids with data.colors=false"
    first: tuple[Sample, IntArray] | None = None
    for sample, fact in zip(samples, facts, strict=True):
        if fact.colours is None:
            continue
        table = fact.colours[: len(classes)]
        first = first or (sample, table)
        if table.shape != first[1].shape or (table != first[1]).any():
            raise DatasetError(
                f"the masks {first[0].mask} and {sample.mask} have different colour tables, so the same index means "
                f"different classes; {remedy}"
            )
        for index, colour in enumerate(map(tuple, table.tolist())):
            if colour in classes and colour != classes[index]:
                meant = config.class_names[classes.index(colour)]
                raise DatasetError(
                    f"the mask {sample.mask} shows index {index}, which would be {config.class_names[index]}, in the "
                    f"colour of {meant}; {remedy}"
                )
