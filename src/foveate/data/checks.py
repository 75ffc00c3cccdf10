"""Checks of a whole data set before training: headers, and why a class has no labelled pixel and what mends it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from foveate.data.area import Polygons
from foveate.data.channels import Kind, lone_value_in, select_channels
from foveate.data.config import DataConfig
from foveate.data.images import open_labels, open_sample
from foveate.data.label_index import MOST_PIXELS, ClassTable, Masks, spread_windows
from foveate.data.labels.raster import RasterLabels
from foveate.data.labels.table import Meaning
from foveate.data.manifest import Sample
from foveate.data.readers.pyramid import ImageReader
from foveate.data.sections import some
from foveate.errors import DatasetError
from foveate.geometry import IGNORE, IntArray, Size

_OUTSIDE = (
    "lie outside the regions in the manifest's column roi",
    "lie where the images have no data (nodata value, mask or alpha band); data.nodata=ignore counts them",
    "lie on glass; data.tissue=false also draws locations there",
)
_SHOWN = 4


class Facts(NamedTuple):
    """What the headers of an image and of its labels say."""

    size: Size
    kind: Kind  # of the bands that are used
    notes: tuple[str, ...]  # what was taken for granted, in sentences
    region: Polygons | None = None  # what is labelled; None for all of it
    colours: IntArray | None = None  # of a mask with a colour table


def refuse_lone_value(image: ImageReader, channels: Sequence[int], config: DataConfig) -> None:
    """Refuse to train on a value that may mean that there is none, see `lone_value_in`.

    Raises:
        DatasetError: naming it and the settings.
    """
    if lone := lone_value_in(image, channels, config):
        value, said = lone
        raise DatasetError(
            f"in {image.location}, {said}. If this value means no data, set data.nodata={value:g}; if it is an "
            "ordinary value, set data.mismatch=allow"
        )


def inspect_samples(samples: Sequence[Sample], config: DataConfig) -> dict[Sample, Facts]:
    """Open every image and mask and check that they fit each other and the configuration; all are of one type.

    Raises:
        DatasetError: when there is no image, or sizes, bands or types do not fit.
    """
    if not samples:
        raise DatasetError("the data set has no images")
    facts = {sample: _inspect(sample, config) for sample in samples}
    first = facts[samples[0]].kind.dtype
    for sample, fact in facts.items():
        if fact.kind.dtype != first:
            raise DatasetError(
                f"{samples[0].image} holds {first} and {sample.image} holds {fact.kind.dtype}; convert some images, so "
                "that all have one type"
            )
    if config.label_map is None:
        _check_colour_tables([(sample, f.colours) for sample, f in facts.items() if f.colours is not None], config)
    return facts


def notes_on(facts: Mapping[Sample, Facts]) -> tuple[str, ...]:
    """What is noted of images and labels, and regions of one image in different splits that overlap."""
    known = [(sample, fact.region) for sample, fact in facts.items() if fact.region is not None]
    shared = (
        f"the regions of {one.name} ({one.split}) and {other.name} ({other.split}) overlap in {pixels:,.0f} pixels, "
        "which would be used for training and for scores"
        for (one, region), (other, its) in combinations(known, 2)
        if one.image == other.image and one.split != other.split and (pixels := region.shared_with(its)) >= 1
    )
    return *gathered((sample.name, fact.notes) for sample, fact in facts.items()), *shared


def gathered(notes: Iterable[tuple[str, Iterable[str]]]) -> tuple[str, ...]:
    """What is noted of each of some images, each note once, with the first few of the images it is about."""
    said: dict[str, list[str]] = {}
    for name, lines in notes:
        for line in lines:
            said.setdefault(line, []).append(name)
    return tuple(f"{some(who)}: {line}" for line, who in said.items())


def _inspect(sample: Sample, config: DataConfig) -> Facts:
    with open_sample(sample, config) as image:
        kind = Kind.of(image, select_channels(image, config.bands, config.in_channels))
        if sample.mask is None:
            return Facts(image.size, kind, image.remarks)
        with open_labels(sample, config) as labels:
            colours = labels.source.colours if isinstance(labels.source, RasterLabels) else None
            return Facts(image.size, kind, (*image.remarks, *labels.notes), labels.region, colours)


def _check_colour_tables(tables: Sequence[tuple[Sample, IntArray]], config: DataConfig) -> None:
    """Refuse masks whose indices do not mean what their colours say."""
    classes = [item.rgb for item in config.classes]
    remedy = "map the colours with data.label_map=colors, or use the indices as class ids with data.label_map=ids"
    for sample, whole in tables:
        table, first = whole[: len(classes)], tables[0][1][: len(classes)]
        if not np.array_equal(table, first):
            raise DatasetError(
                f"the masks {tables[0][0].mask} and {sample.mask} have different colour tables, so the same index "
                f"means different classes; {remedy}"
            )
        for index, colour in enumerate(map(tuple, table.tolist())):
            if colour in classes and colour != classes[index]:
                meant = config.class_names[classes.index(colour)]
                raise DatasetError(
                    f"the mask {sample.mask} shows index {index}, which would be {config.class_names[index]}, in the "
                    f"colour of {meant}; {remedy}"
                )


def check_classes(table: ClassTable, config: DataConfig, masks: Masks, noted: Sequence[str] = ()) -> list[str]:
    """Refuse classes that training would never see; sentences on what else is unusual.

    The masks open the labels of the training images, which are asked for the cause; so may be what was noted of them.

    Raises:
        DatasetError: when a class has no pixel in training and `data.allow_absent_classes` is false, or there is no
            label to train or to validate on.
    """
    notes = []
    train, others = table.splits[0], table.splits[1:]
    missing = table.absent("train")
    if missing:
        reason = _reason(table, config, masks, missing)
        if not config.allow_absent_classes or not train.tally.counts.any():
            way_out = "To train without, set data.allow_absent_classes=true" if train.tally.counts.any() else ""
            said = (f"{reason}.", table.summary(), *(f"{note}." for note in noted), way_out)
            raise DatasetError(" ".join(said).strip())
        notes.append(reason)
    for part in others:
        names = [table.names[label] for label in table.absent(part.split) if label not in missing]
        if part.split == "val" and not part.tally.counts.any() and not part.estimated:
            raise DatasetError(
                "the validation images have no labelled pixel that counts; choose others, or train without validation: "
                "data.split.val=[]"
            )
        if names:
            where = {"val": "validation", "test": "test"}[part.split]
            seen = "in the sampled parts of" if part.estimated else "in"
            notes.append(
                f"{_those(names)} no labelled pixel {seen} the {where} images, so the scores of that split leave it out"
            )
    return [*notes, *_mostly_lost(table)]


def _mostly_lost(table: ClassTable) -> list[str]:
    """Classes of which most does not count for want of data."""
    tally = table.splits[0].tally
    lost, kept = tally.left_out[1], tally.counts
    return [
        f"{lost[label] / (lost[label] + kept[label]):.0%} of the pixels of class {name} in training {_OUTSIDE[1]}"
        for label, name in enumerate(table.names)
        if 0 < kept[label] < lost[label]
    ]


def _reason(table: ClassTable, config: DataConfig, masks: Masks, missing: list[int]) -> str:
    """Why classes have no pixel in training."""
    left_out = table.splits[0].tally.left_out
    causes = [
        f"{left_out[cause, label]:,} pixels of {table.names[label]} {_OUTSIDE[cause]}"
        for label in missing
        for cause in np.flatnonzero(left_out[:, label])
    ]
    causes = causes or _causes(table, config, masks, missing[0])
    head = f"{_those([table.names[label] for label in missing])} no labelled pixel that counts in the training images"
    return f"{head}: {'; '.join(causes)}"


def _causes(table: ClassTable, config: DataConfig, masks: Masks, label: int) -> list[str]:
    """Why no label is one of a class."""
    name, mapped = table.names[label], config.mask_values or {}
    causes = _not_counted(masks, name, label)
    elsewhere = [part.split for part in table.splits[1:] if part.tally.counts[label]]
    if elsewhere:
        causes.append(
            f"only {' and '.join(elsewhere)} images show {name}; move one of them to training with data.split"
        )
    if label in mapped and label not in mapped.values():
        causes.append(f"data.label_map maps the value {label} to another class, and no value to {name}")
    return causes or [f"no label is {name}; add images that show it, or remove it from data.classes"]


def _not_counted(masks: Masks, name: str, label: int) -> list[str]:
    """Values that may be meant by a class, the commonest first; of large masks in a part of them."""
    found: Counter[tuple[float | None, bool]] = Counter()  # by value, None for NaN, and whether it means no data
    meanings: list[Meaning] = []
    for opened in masks:
        with opened() as labels:
            windows = spread_windows(labels.size, MOST_PIXELS // len(masks))
            for mask, window in product(labels.source.rasters, windows):
                meanings.append(mask.meaning)
                rows, cols = np.arange(window.top, window.bottom), np.arange(window.left, window.right)
                values, lacking = mask.stored(rows, cols)
                ignored = ~lacking & (mask.meaning.ids(values) == IGNORE)
                for cause, chosen in ((True, values[lacking]), (False, values[ignored])):
                    unknown = np.isnan(chosen)
                    for value, count in zip(*np.unique(chosen[~unknown], return_counts=True), strict=True):
                        found[value, cause] += int(count)
                    found[None, True] += int(unknown.sum())
    common = [(value, lacking, pixels) for (value, lacking), pixels in found.most_common(_SHOWN) if pixels]
    return [_sentence(meanings[0], value, lacking, f"{pixels:,}", name, label) for value, lacking, pixels in common]


def _sentence(meaning: Meaning, value: float | None, lacking: bool, pixels: str, name: str, label: int) -> str:
    if value is None:
        return f"{pixels} pixels of the masks are NaN, which never counts; if they are {name}, store a number"
    mapped = "which does not count" if value == IGNORE else f"which data.label_map maps to {IGNORE}"
    why = "which the masks declare as nodata" if lacking else mapped
    setting = meaning.setting(value, label)
    return f"{pixels} pixels of the masks are {meaning.shown(value)}, {why}; if they are {name}, set {setting}"


def _those(names: Sequence[str]) -> str:
    return f"class {names[0]} has" if len(names) == 1 else f"classes {', '.join(names)} have"
