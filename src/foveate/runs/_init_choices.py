"""What `init` concludes from a survey: classes and their names, what validates, whether images may be turned."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from foveate.data.survey import Survey
from foveate.data.survey_labels import ClassFacts, ImageFacts
from foveate.types import IGNORE

_VAL_SHARE = 0.2
_MUCH = 0.05  # of the area of polygons in polygons of several classes: neighbours share less along their borders
_FEW = 6  # images below which nothing is concluded from upper and lower halves
OVERLAPPING = {"bands": "masks have one band per class", "folders": "each class has a folder of masks"}
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


def counted_classes(seen: Survey, guesses: list[str]) -> tuple[dict[Any, ClassFacts], dict[int, int]]:
    """Values that are classes, and the label map, empty where ids are as they should be."""
    if seen.kind == "polygons":
        named = {value: facts for value, facts in seen.classes.items() if value}
        if len(named) < len(seen.classes):
            guesses.append("polygons without a class are not counted")
        if seen.overlap > _MUCH:
            guesses.append(
                f"{seen.overlap:.0%} of the area of the polygons lies in polygons of several classes. Each pixel gets "
                "the class of the last polygon in the file. If a pixel may have several, set data.overlapping: true, "
                "and remove the class outside all polygons and data.vectors. If small polygons lie on large ones, set "
                "data.vectors.order: smallest"
            )
        return named, {}
    values = list(seen.classes)
    if seen.kind in ("colours", *OVERLAPPING):
        return dict(seen.classes), {}
    none = [value for value in values if value < 0 or (value == IGNORE and len(values) > 2)]
    if none:
        guesses.append(f"the values {', '.join(map(str, none))} in the labels are treated as pixels without a label")
    kept = {value: facts for value, facts in seen.classes.items() if value not in none}
    plain = list(kept) == list(range(len(kept)))
    mapping = {} if plain else {value: label for label, value in enumerate(kept)}
    return kept, mapping | ({value: IGNORE for value in none if value != IGNORE} if none else {})


def validation_of(images: Sequence[ImageFacts], classes: Sequence[ClassFacts]) -> list[str]:
    """Names of about a fifth of the images, one at least: training keeps every class, validation has most of them."""
    names = [image.name for image in images]
    if len(names) < 2:
        return []
    count, rng = max(1, round(_VAL_SHARE * len(names))), random.Random(0)

    def worth(drawn: Iterable[str]) -> tuple[int, int]:
        rest = set(names) - set(drawn)
        return sum(bool(rest & set(c.images)) for c in classes), sum(bool(set(c.images) & set(drawn)) for c in classes)

    draws = [set(rng.sample(names, count)) for _ in range(200)]
    return sorted(max(draws, key=worth))


def flips_of(seen: Survey) -> tuple[str, str]:
    """Whether images may be turned: where up means nothing."""
    if all(image.crs or (image.pixel_size and image.pixel_size < 1e-5) for image in seen.images):
        return "flip: true, rotate90: true", "maps and slides have no fixed orientation"
    if len(seen.images) < _FEW:
        return (
            "flip: horizontal, rotate90: false",
            "too few images to tell whether up and down matter; if not, set flip: true",
        )
    for facts in seen.classes.values():
        change = np.array(facts.upper) - np.array(facts.lower)
        if abs(change.mean()) > 0.02 and _one_sided(change) < 0.05:
            return (
                "flip: horizontal, rotate90: false",
                "classes differ between upper and lower halves, so up means something",
            )
    return "flip: true, rotate90: true", "classes are equally frequent in upper and lower halves, so up means nothing"


def _one_sided(change: Any) -> float:
    """How likely chance alone brings so many images to one side: the sign test."""
    moved = change[change != 0]
    return float(stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue) if len(moved) else 1.0
