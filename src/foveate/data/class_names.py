"""Names of classes, from what people put beside labels, else from their values."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LISTS = ("classes.txt", "labels.txt", "class_names.txt", "classnames.txt")
_TABLES = ("class_dict.csv", "class_dict_seg.csv", "classes.csv", "label_classes.csv")


def named_classes(folder: Path, kind: str, counted: Mapping[Any, int]) -> list[str]:
    """A name for each value of masks, or for each colour 0xRRGGBB; each once.

    Args:
        folder: of the data set; a list of names by line (`classes.txt`), or a table with name, r, g, b
            (`class_dict.csv`), in it is used.
        kind: "ids", "colours", or "bands" of masks.
        counted: pixels of each value, in ascending order of the values.
    """
    values = list(counted)
    if kind == "bands":
        known = _by_line(folder)
        return [known.get(value, f"class {value + 1}") for value in values]
    known = _by_colour(folder) if kind == "colours" else _by_line(folder)
    invented = [_invented(value, kind, counted) for value in values]
    names = [known.get(value) or other for value, other in zip(values, invented, strict=True)]
    return names if len(set(names)) == len(names) else invented


def _by_line(folder: Path) -> dict[int, str]:
    lines = next((_lines(folder / name) for name in _LISTS if (folder / name).is_file()), [])
    return dict(enumerate(lines))


def _by_colour(folder: Path) -> dict[int, str]:
    rows = [line.split(",") for name in _TABLES if (folder / name).is_file() for line in _lines(folder / name)]
    found = {}
    for row in csv.reader(",".join(row) for row in rows):
        parts = [part.strip() for part in row]
        if len(parts) >= 4 and all(part.isdigit() for part in parts[1:4]):
            red, green, blue = map(int, parts[1:4])
            found[(red << 16) + (green << 8) + blue] = parts[0]
    return found


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _invented(value: int, kind: str, counted: Mapping[Any, int]) -> str:
    if kind == "colours":
        return "background" if value == 0 else f"colour {value:06x}"
    if value == 0 and counted[0] == max(counted.values()):
        return "background"
    return "foreground" if len(counted) == 2 and 0 in counted and value else f"class {value}"
