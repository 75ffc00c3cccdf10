"""Which files make the data set: images paired with masks, each in one split."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from foveate.data.config import DataConfig, SplitConfig
from foveate.data.readers.location import Location
from foveate.data.readers.openslide_reader import dicom_files
from foveate.errors import ConfigError, DatasetError, reason_of, translated
from foveate.texts import read_text
from foveate.units import metres

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SHOWN = 5
_LONGEST = 4000  # letters of a path
_MOST_BYTES = 256 << 20
_REMEDY = "a manifest is a CSV table, or one JSON object a line, with image and mask"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image.

    Attributes:
        image: its file.
        mask: the file of its labels; None when it has none, which only prediction accepts.
        name: of the image file without its suffix, unique in the data set.
        split: "train", "val" or "test".
        pixel_size: of the image in metres, where the manifest gives it.
        roi: GeoJSON file of the region that is labelled, where the manifest gives one.
    """

    image: Path
    mask: Path | None
    name: str
    split: Split
    pixel_size: float | None = None
    roi: Path | None = None


def load_samples(config: DataConfig, *, need_masks: bool = True) -> list[Sample]:
    """All images of the data set, sorted by name, with their splits.

    Args:
        config: says where they are.
        need_masks: refuse images without a mask.

    Raises:
        DatasetError: when a folder, file or mask is missing, a name occurs twice, or a split list names no image.
    """
    rows = _rows(config)
    _check_unique(rows)
    if need_masks:
        _check_masks(rows)
    _check_files(rows)
    splits = _splits(rows, config.split)
    samples = [Sample(row.image, row.mask, row.name, splits[row.name], row.pixel_size, row.roi) for row in rows]
    return sorted(samples, key=lambda sample: sample.name)


def _splits(rows: list[_Row], config: SplitConfig) -> dict[str, Split]:
    """A row's own split comes first; the configuration is about the others."""
    given = {row.name: row.split for row in rows if row.split}
    return given | assign_splits([row.name for row in rows if not row.split], config)


def assign_splits(names: Iterable[str], config: SplitConfig) -> dict[str, Split]:
    """The split of each name.

    Raises:
        DatasetError: when a list names an image that is not there, two lists name the same, or a `train` list was
            given and an image is in no list.
    """
    names = list(names)
    listed = _listed(config)
    unknown = sorted(set(listed) - set(names))
    if unknown:
        raise DatasetError(
            f"the split lists name images that are not there: {_some(unknown)}; there are {_some(names)}"
        )
    rest = sorted(set(names) - set(listed))
    if rest and config.train is not None:
        raise DatasetError(f"a train list is given, and these images are in no list: {_some(rest)}; add or remove them")
    return listed | {name: _drawn(name, config) for name in rest}


def _listed(config: SplitConfig) -> dict[str, Split]:
    result: dict[str, Split] = {}
    for split in SPLITS:
        for name in getattr(config, split) or []:
            if result.setdefault(name, split) != split:
                raise DatasetError(f"image {name!r} is listed in both {result[name]} and {split}; keep one")
    return result


def _drawn(name: str, config: SplitConfig) -> Split:
    """By a hash, so that adding an image moves no other one."""
    digest = hashlib.sha256(f"{config.seed}:{name}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < config.test_fraction:
        return "test"
    return "val" if share < config.test_fraction + config.val_fraction else "train"


class _Row(NamedTuple):
    """A sample whose split may not be known yet."""

    image: Path
    mask: Path | None
    name: str
    split: Split | None
    pixel_size: float | None = None
    roi: Path | None = None


def _rows(config: DataConfig) -> list[_Row]:
    if config.folder is not None:
        return _from_folder(config.root / config.folder)
    if isinstance(config.manifest, Path):
        return _from_manifest(config.root / config.manifest, config.root)
    if config.manifest:
        lists = config.manifest.items()
        return [row for split, path in lists for row in _from_manifest(config.root / path, config.root, split)]
    raise DatasetError("data.folder and data.manifest are both missing; give one")


def _from_folder(folder: Path) -> list[_Row]:
    for needed in (folder, folder / "images"):
        if not needed.is_dir():
            raise DatasetError(f"no folder {needed}; a data set folder holds images/ and masks/, paired by file stem")
    images = _files(folder / "images")
    if not images:
        raise DatasetError(f"no image in {folder / 'images'}")
    masks = _files(folder / "masks") if (folder / "masks").is_dir() else []
    named = [(Location.of(path).name, path) for path in masks]
    _check_repeated("masks", [name for name, _ in named])
    by_name = dict(named)
    return [_Row(path, by_name.get(name := Location.of(path).name), name, None) for path in images]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _may_be_image(path))


def _may_be_image(path: Path) -> bool:
    """GDAL leaves .aux.xml files beside images, systems leave hidden ones, and slides have folders of their own.

    Those of slides in DICOM are the slides: the files in them are levels.
    """
    stored = path.is_file() or path.suffix.lower() == ".zarr" or bool(dicom_files(path))
    return stored and not path.name.startswith(".") and not path.name.endswith(".aux.xml")


def _from_manifest(path: Path, root: Path, split: Split | None = None) -> list[_Row]:
    """Rows of a table; the split is of those that give none."""
    if not path.is_file():
        raise DatasetError(f"no manifest at {path}")
    records = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json_lines(path)
    if not records:
        raise DatasetError(f"the manifest {path} names no image")
    bases = [path.parent, root]
    rows = [_row(record, bases, f"{path}, entry {number}") for number, record in enumerate(records, start=1)]
    # The original's lists name some images twice, which made them count twice; here an image is either in or not.
    return list(dict.fromkeys(row._replace(split=row.split or split) for row in rows))


def _read_csv(path: Path) -> list[dict[str, Any]]:
    text = read_text(path, DatasetError, _REMEDY, _MOST_BYTES)
    with translated(DatasetError, f"{path} is no table", _REMEDY):
        return list(csv.DictReader(io.StringIO(text, newline="")))


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    lines = read_text(path, DatasetError, _REMEDY, _MOST_BYTES).splitlines()
    try:
        records = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is neither CSV (by its suffix) nor JSON lines: {error}") from None
    if not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path}: every line must be a JSON object with 'image' and 'mask'")
    return records


def _row(record: dict[str, Any], bases: list[Path], place: str) -> _Row:
    """A row from our keys or from those of the original's `.odgt` files."""
    image = _name(record, place, "image", "fpath_img")
    mask, roi_path = _name(record, place, "mask", "fpath_segm"), _name(record, place, "roi")
    split = _name(record, place, "split") or None
    if not image:
        raise DatasetError(f"{place}: no 'image'; the keys are image, mask and split (or fpath_img, fpath_segm)")
    if split not in (*SPLITS, None):
        raise DatasetError(f"{place}: split {split!r}; allowed are {', '.join(SPLITS)}")
    found = _resolve(image, bases)
    mask_path = _resolve(mask, bases) if mask else None
    roi = _resolve(roi_path, bases) if roi_path else None
    name = Location.of(found).name
    return _Row(found, mask_path, name, split, _pixel_size(record, place), roi)


def _name(record: dict[str, Any], place: str, *keys: str) -> str:
    """The first of some entries that is given; empty without."""
    value = next((record[key] for key in keys if record.get(key)), "")
    if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST:
        raise DatasetError(f"{place}: {keys[0]} is {str(value)[:60]!r}, where a name belongs")
    return value


def _pixel_size(record: dict[str, Any], place: str) -> float | None:
    text = record.get("pixel_size")
    try:
        return metres(str(text)) if text else None
    except ConfigError as error:
        raise DatasetError(f"{place}: pixel_size {error}") from None


def _resolve(text: str, bases: list[Path]) -> Path:
    place = Location.of(text)
    if not place.is_local:
        return Path(text)  # `open_image` gives a URL its second slash back
    candidates = [base / text for base in bases]
    try:
        return next((path for path in candidates if path.exists()), candidates[0])
    except (OSError, ValueError) as error:  # a part of it is too long, or what no path may hold
        raise DatasetError(f"{text[:60]!r} cannot be the name of a file: {reason_of(error)}") from None


def _check_unique(rows: list[_Row]) -> None:
    _check_repeated("images", [row.name for row in rows])


def _check_repeated(kind: str, names: list[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DatasetError(
            f"{kind} must have different file stems, as they are paired by them; twice: {_some(repeated)}"
        )


def _check_masks(rows: list[_Row]) -> None:
    missing = [row.name for row in rows if row.mask is None]
    if missing:
        raise DatasetError(f"{len(missing)} of {len(rows)} images have no mask: {_some(missing)}")


def _check_files(rows: list[_Row]) -> None:
    named = [path for row in rows for path in (row.image, row.mask, row.roi) if path is not None]
    missing = [str(path) for path in named if Location.of(path).is_local and not path.exists()]
    if missing:
        raise DatasetError(f"{len(missing)} files are not there: {_some(missing)}")


def _some(names: list[str]) -> str:
    """The first few names and how many more there are."""
    text = ", ".join(names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text} and {len(names) - _SHOWN} more"
