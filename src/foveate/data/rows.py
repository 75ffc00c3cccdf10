"""The rows of a manifest: a table of images, with what belongs to each."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from foveate.data.readers.base import Address
from foveate.data.sections import SPLITS, Split
from foveate.errors import ConfigError, DatasetError, reason_of
from foveate.texts import metres, read_text

_LONGEST = 4000  # letters of a path
_MOST_BYTES = 256 << 20
_REMEDY = "a manifest is a CSV table, or one JSON object per line, with image and mask"


class Row(NamedTuple):
    """An image of a data set; see `foveate.data.manifest.Sample`.

    Attributes:
        splits: none when it is not known yet, several when it is in several on purpose.
    """

    image: Path
    mask: Path | None
    name: str
    splits: tuple[Split, ...] = ()
    pixel_size: float | None = None
    roi: Path | None = None


def rows_of(path: Path, root: Path, splits: tuple[Split, ...] = ()) -> list[Row]:
    """The rows of a CSV file, or of JSON lines.

    Args:
        path: of the file.
        root: where paths are looked for that are not beside the file.
        splits: of rows that give none.

    Raises:
        DatasetError: when the file is missing, in another encoding, or a row is not as it should be.
    """
    if not path.is_file():
        raise DatasetError(f"no manifest at {path}")
    text = read_text(path, DatasetError, _REMEDY, _MOST_BYTES)
    records = _csv(text, path) if path.suffix.lower() in (".csv", ".tsv", ".txt") else _json(text, path)
    if not records:
        raise DatasetError(f"the manifest {path} has no images")
    # The original's list of its demonstration lies in the folder that its paths begin with.
    bases = [path.parent, root, path.parent.parent]
    rows = [_row(record, bases, f"{path}, entry {number}") for number, record in enumerate(records, start=1)]
    # The original's lists name some images twice, which made them count twice; here an image is either in or not.
    return list(dict.fromkeys(row._replace(splits=row.splits or splits) for row in rows))


def _csv(text: str, path: Path) -> list[dict[str, Any]]:
    """Columns are divided by commas, or as spreadsheets of other countries write them by semicolons or tabs."""
    header = text.partition("\n")[0]
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
        table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
        records = list(table)
    except csv.Error as error:
        raise DatasetError(f"{path} is not a table ({error}); {_REMEDY}") from None
    long = next((number for number, record in enumerate(records, start=1) if None in record), None)
    if long is not None:
        raise DatasetError(f"{path}, entry {long} has more columns than the header; put names with commas into quotes")
    return [{key: (value or "").strip() for key, value in record.items()} for record in records]


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    """JSON lines, or one list."""
    try:
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is neither CSV (by its suffix) nor JSON lines: {error}") from None
    if not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path}: every line must be a JSON object with 'image' and 'mask'")
    return list(records)


def _row(record: dict[str, Any], bases: list[Path], place: str) -> Row:
    """A row from our keys or from those of the original's `.odgt` files."""
    image, mask = _text(record, place, "image", "fpath_img"), _text(record, place, "mask", "fpath_segm")
    split, roi = _text(record, place, "split"), _text(record, place, "roi")
    if not image:
        raise DatasetError(f"{place}: no 'image'; the keys are image, mask and split (or fpath_img, fpath_segm)")
    if split and split not in SPLITS:
        raise DatasetError(f"{place}: split {split!r}; allowed are {', '.join(SPLITS)}")
    found = _resolve(image, bases)
    return Row(
        found,
        _resolve(mask, bases) if mask else None,
        Address.of(found).name,
        (split,) if split else (),
        _pixel_size(record, place),
        _resolve(roi, bases) if roi else None,
    )


def _text(record: dict[str, Any], place: str, *keys: str) -> str:
    """The text under the first of these keys that has any."""
    value = next((record[key] for key in keys if record.get(key)), "")
    if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST:
        raise DatasetError(f"{place}: {keys[0]} is {str(value)[:60]!r}, which is not a file name")
    return value


def _pixel_size(record: dict[str, Any], place: str) -> float | None:
    text = record.get("pixel_size")
    try:
        return metres(str(text)) if text else None
    except ConfigError as error:
        raise DatasetError(f"{place}: pixel_size {error}") from None


def _stands_for_files(path: Path) -> bool:
    """Whether a file is there, or the folder of files for each class or band, `masks/{class}/a.png`."""
    before = re.split(r"\{class\}|\{band\}", str(path))[0]
    return (
        path.exists() if before == str(path) else Path(before if before.endswith("/") else Path(before).parent).exists()
    )


def _resolve(text: str, bases: list[Path]) -> Path:
    place = Address.of(text)
    if not place.is_local:
        return Path(text)  # `open_image` gives a URL its second slash back
    candidates = [base / spelled for spelled in (text, text.replace("\\", "/")) for base in bases]
    try:
        return next((path for path in candidates if _stands_for_files(path)), candidates[0])
    except (OSError, ValueError) as error:  # a part of it is too long, or what no path may hold
        raise DatasetError(f"{text[:60]!r} cannot be a file name: {reason_of(error)}") from None
