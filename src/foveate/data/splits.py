"""Which images train, which validate, which test: by lists, or drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from foveate.data.sections import SplitConfig
from foveate.errors import DatasetError

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SHOWN = 5


def assign_splits(names: Iterable[str], config: SplitConfig) -> dict[str, Split]:
    """The split of each name; what no list names is drawn, and the order of the names changes nothing.

    Raises:
        DatasetError: when a list names an image that is not there, two lists name the same, or a `train` list was
            given and an image is in no list.
    """
    names = list(names)
    listed = _listed(config)
    unknown = sorted(set(listed) - set(names))
    if unknown:
        raise DatasetError(
            f"the split lists name images that do not exist: {some(unknown)}; the images are {some(names)}"
        )
    rest = sorted(set(names) - set(listed))
    if rest and config.train is not None:
        raise DatasetError(f"there is a train list, but these images are in no list: {some(rest)}; add or remove them")
    return listed | _drawn(rest, config)


def _listed(config: SplitConfig) -> dict[str, Split]:
    result: dict[str, Split] = {}
    for split in SPLITS:
        for name in getattr(config, split) or []:
            if result.setdefault(name, split) != split:
                raise DatasetError(f"image {name!r} is listed in both {result[name]} and {split}; keep one")
    return result


def _drawn(names: Sequence[str], config: SplitConfig) -> dict[str, Split]:
    """The first by a hash, so that another image moves at most one to each side of a border between splits."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{config.seed}:{name}".encode()).digest())
    test, val = _counts(len(ranked), config)
    kinds: tuple[tuple[Split, int], ...] = (("test", test), ("val", val), ("train", len(ranked) - test - val))
    return dict(zip(ranked, (split for split, count in kinds for _ in range(count)), strict=True))


def _counts(images: int, config: SplitConfig) -> tuple[int, int]:
    """Images to test and to validate on: to the nearest whole number, one at least, and one is left to train on."""
    test, val = (max(1, round(share * images)) if share else 0 for share in (config.test_fraction, config.val_fraction))
    val = min(val, max(0, images - 1))
    return min(test, max(0, images - 1 - val)), val


def some(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    text = ", ".join(names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text} and {len(names) - _SHOWN} more"
