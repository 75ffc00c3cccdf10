"""What `init` concludes from a survey: classes, what validates, fields of view, whether images may be turned."""

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from foveate.config_base import ConfigTree
from foveate.data.sections import ClassConfig, default_classes
from foveate.data.survey import ClassFacts, ImageFacts, Survey
from foveate.devices import available_cores, best_device
from foveate.geometry import IGNORE
from foveate.texts import length

_VAL_SHARE = 0.2
_MUCH = 0.05  # of the area of polygons in polygons of several classes: neighbours share less along their borders
_FEW = 6  # images below which nothing is concluded from upper and lower halves
OVERLAPPING = {"bands": "masks have one band per class", "folders": "each class has a folder of masks"}
_LISTS = ("classes.txt", "labels.txt", "class_names.txt", "classnames.txt")
_TABLES = ("class_dict.csv", "class_dict_seg.csv", "classes.csv", "label_classes.csv")


@dataclass
class Choices:
    """What is concluded of a data set."""

    seen: Survey  # the data set
    name: str  # of the run
    manifest: Path | None  # the table of files, where one was written
    given: ConfigTree = field(default_factory=dict)  # entries of `data` that the user gave
    guesses: list[str] = field(default_factory=list)  # what was not understood, left out or guessed

    def __post_init__(self) -> None:
        self.device = best_device()
        self.on_cpu = self.device == "cpu"
        self.counted, self.label_map = counted_classes(self.seen, self.guesses)
        self.names = self._class_names()
        total = sum(facts.pixels for facts in self.counted.values())
        background = self._background()
        self.shares = dict.fromkeys(self.names, 0.0)
        for label, facts in zip(self.names[len(background) :], self.counted.values(), strict=True):
            shared = self.seen.kind not in ("polygons", *OVERLAPPING)
            area = total if shared else sum(image.size.pixels for image in self.seen.images)
            self.shares[label] = facts.pixels / max(1, area)
        if background:
            self.shares[background[0]] = max(0.0, 1 - sum(self.shares.values()))
        self.val = validation_of(self.seen.images, list(self.counted.values()))
        self.patch = self._patch()
        self.views = self._views()

    def found(self) -> dict[str, str]:
        """Facts for the terminal."""
        images, sides = self.seen.images, sorted(image.sides[1] for image in self.seen.images)
        longer = f"{sides[0]} to {sides[-1]}" if sides[0] < sides[-1] else sides[0]
        sizes = sorted({image.pixel_size for image in images if image.pixel_size})
        facts = {
            "images": f"{len(images)}, longer side {longer} px, {self.seen.bands} bands of {images[0].dtype}, "
            f"values {self.seen.low:g} to {self.seen.high:g}",
            "labels": f"{self.seen.kind}, {'read in full' if self.seen.complete else 'sampled'}",
            **{f"{name}": self._about(name) for name in self.names},
            "validation": ", ".join(self.val) or "the last quarter of the scene",
            "device": self._device_text(),
        }
        if sizes:
            facts["pixel size"] = " to ".join(dict.fromkeys([length(sizes[0]), length(sizes[-1])]))
        if any(image.crs for image in images):
            facts["place on the ground"] = f"{sum(image.crs is not None for image in images)} of {len(images)} images"
        return facts

    def _device_text(self) -> str:
        return f"{available_cores()} processor cores, no GPU" if self.on_cpu else self.device

    def _about(self, name: str) -> str:
        first = len(self._background())
        index = self.names.index(name)
        if index < first:
            return f"{percent(self.shares[name])}, outside all polygons"
        facts = list(self.counted.values())[index - first]
        size = f", objects typically {facts.diameter:.0f} px wide" if facts.diameter else ""
        return f"{percent(self.shares[name])}, in {len(facts.images)} of {len(self.seen.images)} images{size}"

    def _background(self) -> list[str]:
        return ["background"] if self.seen.kind == "polygons" and "background" not in self.counted else []

    def _class_names(self) -> list[str]:
        if self.seen.kind == "folders":
            return list(map(str, self.counted))
        if self.seen.kind == "polygons":
            return [*self._background(), *map(str, self.counted)]
        counted = {value: facts.pixels for value, facts in self.counted.items()}
        return named_classes(self.seen.folder, self.seen.kind, counted, self.guesses)

    def _classes(self) -> list[ClassConfig]:
        if self.seen.kind != "colours":
            return default_classes(self.names)
        named = zip(self.names, self.counted, strict=True)
        return [ClassConfig(name=name, color=f"#{value:06x}") for name, value in named]

    def _is_slide(self) -> bool:
        in_colour = self.seen.bands == 3 and self.seen.images[0].dtype == "uint8"  # others have no glass
        return in_colour and all(image.pixel_size is not None and image.pixel_size < 1e-5 for image in self.seen.images)

    def _patch(self) -> int:
        least = min(image.sides[0] for image in self.seen.images)
        wanted = 128 if self.on_cpu else 256
        return next((side for side in (256, 128, 64) if side <= wanted and 2 * side <= least), 32)

    def _views(self) -> tuple[int, ...]:
        """Once, twice and four times the patch, within the images.

        A widest view of eight times, for large objects, was five points worse on idrid: docs/results/real-data.md.
        """
        least = min(image.sides[0] for image in self.seen.images)
        widest = 4 * self.patch
        while widest > max(least, self.patch):
            widest //= 2
        return tuple(sorted({self.patch, max(self.patch, widest // 2), widest}))


def percent(share: float) -> str:
    """A share for a comment."""
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "less than 0.1 %"


def named_classes(folder: Path, kind: str, counted: Mapping[Any, int], guesses: list[str]) -> list[str]:
    """A name for each value of masks, or for each colour 0xRRGGBB; each once.

    Args:
        folder: of the data set; a list of names by line (`classes.txt`), or a table with name, r, g, b
            (`class_dict.csv`), in it is used.
        kind: "ids", "colours", or "bands" of masks.
        counted: pixels of each value, in ascending order of the values.
        guesses: told what does not match.
    """
    file, known = _by_colour(folder) if kind == "colours" else _by_line(folder)
    if kind == "ids" and len(known) == len(counted) and not known.keys() >= counted.keys():
        known = dict(zip(counted, known.values(), strict=True))
        guesses.append(f"{file} has a name for each value of the labels: {_listed(known)}")
    elif known and (nameless := [value for value in counted if value not in known]):
        guesses.append(f"{file} has no name for {', '.join(_value(value, kind) for value in nameless)}")
    if unseen := {_value(value, kind): name for value, name in known.items() if value not in counted}:
        guesses.append(f"{file} names what no label has, which is left out: {_listed(unseen)}")
    invented = [_invented(value, kind, counted) for value in counted]
    names = [known.get(value) or other for value, other in zip(counted, invented, strict=True)]
    if len(set(names)) == len(names):
        return names
    guesses.append(f"{file} has a name twice, so its names are not used")
    return invented


def _value(value: int, kind: str) -> str:
    """What a mask holds, for people."""
    return f"#{value:06x}" if kind == "colours" else f"band {value + 1}" if kind == "bands" else f"the value {value}"


def _listed(names: Mapping[Any, str]) -> str:
    return ", ".join(f"{value} is {name}" for value, name in names.items())


def _by_line(folder: Path) -> tuple[str, dict[int, str]]:
    """The file, and the name of each value, the first line that of 0."""
    return next(
        ((name, dict(enumerate(_lines(folder / name)))) for name in _LISTS if (folder / name).is_file()), ("", {})
    )


def _by_colour(folder: Path) -> tuple[str, dict[int, str]]:
    """The file, and the name of each colour."""
    found, file = {}, ""
    for name in _TABLES:
        for row in csv.reader(_lines(folder / name) if (folder / name).is_file() else []):
            parts = [part.strip() for part in row]
            if len(parts) >= 4 and all(part.isdigit() for part in parts[1:4]):
                red, green, blue = map(int, parts[1:4])
                found[(red << 16) + (green << 8) + blue], file = parts[0], name
    return file, found


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _invented(value: int, kind: str, counted: Mapping[Any, int]) -> str:
    if kind == "bands":
        return f"class {value + 1}"
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
        listed = f"value {none[0]}" if len(none) == 1 else f"values {', '.join(map(str, none))}"
        guesses.append(f"pixels with the {listed} in the labels are treated as not labelled")
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


def orientations_of(seen: Survey) -> tuple[str, str]:
    """Whether images may be turned: where up means nothing."""
    if all(image.crs or (image.pixel_size and image.pixel_size < 1e-5) for image in seen.images):
        return "d4", "maps and slides have no fixed orientation"
    if len(seen.images) < _FEW:
        return "horizontal", "too few images to tell whether up and down matter; if not, set orientations: d4"
    for facts in seen.classes.values():
        change = np.array([np.subtract(*facts.halves.get(image.name, (0, 0))) for image in seen.images])
        if abs(change.mean()) > 0.02 and _one_sided(change) < 0.05:
            return "horizontal", "classes differ between upper and lower halves, so up means something"
    return "d4", "classes are equally frequent in upper and lower halves, so up means nothing"


def _one_sided(change: Any) -> float:
    """How likely chance alone brings so many images to one side: the sign test."""
    moved = change[change != 0]
    return float(stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue) if len(moved) else 1.0
