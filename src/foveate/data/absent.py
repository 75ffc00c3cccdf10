"""Why a class has no labelled pixel in training, and which setting mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.data.class_table import MOST_PIXELS, ClassTable, spread_windows
from foveate.data.config import DataConfig
from foveate.data.labels.overlapping import OverlappingLabels
from foveate.data.labels.raster import RasterLabels
from foveate.data.labels.reader import LabelReader, LabelSource
from foveate.data.labels.table import Meaning
from foveate.errors import DatasetError

_OUTSIDE = (
    "lie outside the regions in the manifest's column roi",
    "lie where the images have no data (nodata value, mask or alpha band); data.use_nodata=false counts them",
    "lie on glass; data.tissue=false also draws locations there",
)
_SHOWN = 4


def check_classes(
    table: ClassTable, config: DataConfig, masks: Sequence[Callable[[], LabelReader]], noted: Sequence[str] = ()
) -> list[str]:
    """Refuse classes that training would never see; say what else is unusual.

    Args:
        table: what is labelled.
        config: of the data set.
        masks: functions that open the labels of the training images, which are asked for the cause.
        noted: what was taken for granted of the labels, which may be the cause.

    Returns:
        Sentences.

    Raises:
        DatasetError: when a class has no pixel in training and `data.allow_absent_classes` is false, or there is no
            label to train or to validate on.
    """
    notes = []
    train, others = table.splits[0], table.splits[1:]
    missing = table.absent("train")
    if missing:
        reason = _reason(table, config, masks)
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


def _reason(table: ClassTable, config: DataConfig, masks: Sequence[Callable[[], LabelReader]]) -> str:
    train, missing = table.splits[0], table.absent("train")
    names = [table.names[label] for label in missing]
    head = f"{_those(names)} no labelled pixel that counts in the training images"
    lost = [(label, cause) for label in missing for cause in np.flatnonzero(train.tally.left_out[:, label])]
    if lost:
        causes = [
            f"{train.tally.left_out[cause, label]:,} pixels of {table.names[label]} {_OUTSIDE[cause]}"
            for label, cause in lost
        ]
        return f"{head}: {'; '.join(causes)}"
    return f"{head}: {'; '.join(_causes(table, config, masks, missing))}"


def _causes(
    table: ClassTable, config: DataConfig, masks: Sequence[Callable[[], LabelReader]], missing: list[int]
) -> list[str]:
    label, name = missing[0], table.names[missing[0]]
    causes = [cause.sentence(name, label) for cause in _not_counted(masks)[:_SHOWN]]
    elsewhere = [part.split for part in table.splits[1:] if part.tally.counts[label]]
    if elsewhere:
        causes.append(
            f"only {' and '.join(elsewhere)} images show {name}; move one of them to training with data.split"
        )
    if config.label_map and label in config.label_map and label not in config.label_map.values():
        causes.append(f"data.label_map maps the value {label} to another class, and no value to {name}")
    return causes or [f"no label is {name}; add images that show it, or remove it from data.classes"]


class _NotCounted(NamedTuple):
    """A value of masks that does not count; None for NaN."""

    value: Any
    lacking: bool
    pixels: int
    meaning: Meaning

    def sentence(self, name: str, label: int) -> str:
        if self.value is None:
            return (
                f"{self.pixels:,} pixels of the masks are NaN, which never counts; if they are {name}, store a number"
            )
        why = (
            " which the masks declare as nodata" if self.lacking else " which data.label_map maps to data.ignore_index"
        )
        if not self.lacking and self.value == self.meaning.ignore_index:
            why = " = data.ignore_index"
        return (
            f"{self.pixels:,} pixels of the masks are {self.meaning.shown(self.value)}{why}; if they are {name}, set "
            f"{self.meaning.setting(self.value, label)}"
        )


def _not_counted(masks: Sequence[Callable[[], LabelReader]]) -> list[_NotCounted]:
    """Values that may be meant, the commonest first; of large masks in a part of them."""
    found: Counter[tuple[Any, bool]] = Counter()
    meanings: list[Meaning] = []
    for open_labels in masks:
        with open_labels() as labels:
            windows = spread_windows(labels.size, MOST_PIXELS // len(masks))
            for mask, window in product(_rasters(labels.source), windows):
                meanings.append(mask.meaning)
                values, lacking = mask.stored(
                    np.arange(window.top, window.bottom), np.arange(window.left, window.right)
                )
                ignored = ~lacking & (mask.meaning.ids(values) == mask.membership.ignore_index)
                for cause, chosen in ((True, lacking), (False, ignored)):
                    found.update(_counted(values[chosen], cause))
    return [_NotCounted(value, lacking, pixels, meanings[0]) for (value, lacking), pixels in found.most_common()]


def _rasters(source: LabelSource) -> list[RasterLabels]:
    """The masks that labels are read from."""
    return (
        source.parts if isinstance(source, OverlappingLabels) else [source] if isinstance(source, RasterLabels) else []
    )


def _counted(values: NDArray[Any], cause: bool) -> dict[tuple[Any, bool], int]:
    """How often each value is there; all NaN together, under None."""
    unknown = np.isnan(values)
    found = {(value, cause): int(n) for value, n in zip(*np.unique(values[~unknown], return_counts=True), strict=True)}
    return {**found, (None, True): int(unknown.sum())} if unknown.any() else found


def _those(names: Sequence[str]) -> str:
    return f"class {names[0]} has" if len(names) == 1 else f"classes {', '.join(names)} have"
