"""`ClassTable`: how often each class is labelled in each split, and what of it does not count; told before training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.labels.reader import LEFT_OUT, LabelReader
from foveate.data.splits import Split
from foveate.geometry import Size, Window
from foveate.membership import Membership
from foveate.types import IntArray, LabelArray

_T = TypeVar("_T")
_SIDE = 512
# Of images that are not trained on no more is read: what is then found is an estimate.
MOST_PIXELS = 1 << 26


@dataclass(frozen=True, slots=True)
class Tally:
    """Pixels of some labels.

    Attributes:
        counts: (classes,) that count.
        ignored: labelled `ignore_index`, or not at all.
        left_out: (causes, classes) that are of a class and do not count, by the causes of `LEFT_OUT`.
    """

    counts: IntArray
    ignored: int
    left_out: IntArray

    @classmethod
    def none(cls, classes: int) -> Tally:
        """No pixel at all."""
        return cls(np.zeros(classes, np.int64), 0, np.zeros((len(LEFT_OUT), classes), np.int64))

    @classmethod
    def of(cls, ids: LabelArray, why: NDArray[np.uint8] | None, classes: int, membership: Membership) -> Tally:
        """The pixels of a part of the labels, see `LabelParts`."""
        causes = np.zeros(ids.shape, np.uint8) if why is None else why
        found = membership.counts(ids, causes, len(LEFT_OUT) + 1, classes)
        return cls(found[0, :classes], int(found[:, classes].sum()), found[1:, :classes])

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.counts + other.counts, self.ignored + other.ignored, self.left_out + other.left_out)

    def scaled(self, factor: float) -> Tally:
        """As many times as many pixels."""
        counts, left_out = (np.rint(part * factor).astype(np.int64) for part in (self.counts, self.left_out))
        return Tally(counts, round(self.ignored * factor), left_out)


@dataclass(frozen=True, slots=True)
class SplitLabels:
    """The labels of a split.

    Attributes:
        split: "train", "val" or "test".
        images: how many it has.
        tally: its pixels.
        estimated: whether they were counted in parts of the images only.
    """

    split: Split
    images: int
    tally: Tally
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The labels of a data set.

    Attributes:
        names: of the classes.
        splits: those that have images; training first.
    """

    names: tuple[str, ...]
    splits: tuple[SplitLabels, ...]

    def absent(self, split: Split) -> list[int]:
        """The ids of the classes without a counted pixel in a split; none of a split without images."""
        (counts,) = [part.tally.counts for part in self.splits if part.split == split] or [np.ones(1, np.int64)]
        return [int(label) for label in np.flatnonzero(counts == 0)]

    def summary(self) -> str:
        """The counts in one line."""
        lines = []
        for part in self.splits:
            counts = zip((*self.names, "ignored"), (*part.tally.counts, part.tally.ignored), strict=True)
            about = "about, " if part.estimated else ""
            lines.append(f"{part.split}: {about}" + ", ".join(f"{name} {count:,}" for name, count in counts))
        return f"Counted pixels in {'; '.join(lines)}."


def count_split(split: Split, masks: Sequence[Callable[[], LabelReader]], classes: int) -> SplitLabels:
    """Count the labels of a split, of large ones in windows that are spread evenly.

    Args:
        split: its name.
        masks: one function per image that opens its labels.
        classes: number of classes.

    Raises:
        DatasetError: when a label is not allowed.
        ImageReadError: when a file is damaged.
    """

    def count(labels: LabelReader) -> tuple[Tally, float]:
        windows = spread_windows(labels.size, MOST_PIXELS // len(masks))
        tallies = (Tally.of(*labels.parts(window), classes, labels.membership) for window in windows)
        found = sum(tallies, Tally.none(classes))
        times = labels.size.pixels / sum(window.size.pixels for window in windows)
        return found.scaled(times), times

    counted = list(read_each(masks, count))
    total = sum((tally for tally, _ in counted), Tally.none(classes))
    return SplitLabels(split, len(masks), total, any(times > 1 for _, times in counted))


def read_each(masks: Sequence[Callable[[], LabelReader]], work: Callable[[LabelReader], _T]) -> Iterator[_T]:
    """Open, read and close each of some labels in a thread, several at a time; what came of it, in order."""

    def one(open_labels: Callable[[], LabelReader]) -> _T:
        with open_labels() as labels:
            return work(labels)

    executor = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        yield from executor.map(one, masks)
    finally:
        # After an error those not yet begun are not read at all.
        executor.shutdown(cancel_futures=True)


def spread_windows(size: Size, pixels: int) -> list[Window]:
    """Disjoint windows of an image, evenly spread, that hold about so many pixels; all of it where it has no more."""
    tops, lefts = range(0, size.height, _SIDE), range(0, size.width, _SIDE)
    places = [(top, left) for top in tops for left in lefts]
    step = max(1, -(-len(places) * _SIDE**2 // max(pixels, _SIDE**2)))
    # Every so many-th along a line that goes on in the next row, unless rows would always be met in the same columns.
    step += step > 1 and len(lefts) % step == 0
    return [
        Window(top, left, min(_SIDE, size.height - top), min(_SIDE, size.width - left)) for top, left in places[::step]
    ]
