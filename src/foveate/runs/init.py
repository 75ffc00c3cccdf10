"""`init`: from a folder of images and labels to a configuration that says why each choice was made."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from foveate.data.class_names import named_classes
from foveate.data.config import ClassConfig, default_classes, default_root
from foveate.data.survey import ClassFacts, ImageFacts, Survey, survey
from foveate.devices import available_cores, best_device
from foveate.files import refuse_existing, write_text
from foveate.runs.config import RunConfig
from foveate.units import length

_ENCODER = "tf_efficientnet_lite0"
_ENCODER_MEAN = _ENCODER_STD = [0.5, 0.5, 0.5]  # what its ImageNet weights were trained with
_IGNORE = 255
_VAL_SHARE = 0.2
_VISITS = 20  # how often training passes each place, on average
_OVERLAPPING = {"bands": "masks have a band for each class", "folders": "there is a folder of masks for each class"}
_FEW = 6  # images below which nothing is concluded from upper and lower halves


class Initialised(NamedTuple):
    """What `init` found and wrote.

    Attributes:
        path: the configuration.
        config: the same, parsed.
        found: facts of the data set, each with a name.
        problems: what was not understood, left out or guessed.
        files: what was written.
    """

    path: Path
    config: RunConfig
    found: dict[str, str]
    problems: tuple[str, ...]
    files: tuple[Path, ...]


def init(folder: Path, out: Path | None = None, *, overwrite: bool = False) -> Initialised:
    """Look at a folder of images and labels, and write a configuration to train on it.

    Args:
        folder: holds images/ and masks/ (or labels/, annotations/): masks of class ids or of colours, or polygons,
            under the names of the images. Of overlapping classes masks with a band for each, or a folder for each.
        out: the configuration; NAME.yaml in the current folder when None.
        overwrite: replace an earlier one.

    Raises:
        DatasetError: when the folder holds no images with labels, or they do not make a data set.
        OutputExistsError: when a file is there and may not be replaced.
    """
    name = name_of(folder)
    path = out or Path(f"{name}.yaml")
    refuse_existing(path, overwrite)
    seen = survey(folder)
    written = _write_manifest(seen, path, overwrite)
    draft = _Draft(seen, name, written[0] if written else None)
    text = draft.text()
    config = RunConfig.parse(_parsed(text), source=str(path))
    write_text(path, text, overwrite=overwrite)
    return Initialised(path, config, draft.found(), (*seen.problems, *draft.guesses), (path, *written))


def name_of(folder: Path) -> str:
    """What a run on a folder is called."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-") or "run"


def config_for(folder: Path) -> Path:
    """The configuration of a folder in the current one, written by `init` where it is not there yet."""
    path = Path(f"{name_of(folder)}.yaml")
    return path if path.exists() else init(folder, path).path


def _parsed(text: str) -> Any:
    import yaml  # noqa: PLC0415 - only here

    return yaml.safe_load(text)


def _write_manifest(seen: Survey, path: Path, overwrite: bool) -> tuple[Path, ...]:
    """A table of files, where images/ and masks/ do not say it all: of one scene, and of other names."""
    one = len(seen.images) == 1
    plain = {image.path.parent.name for image in seen.images} == {"images"} and all(
        image.labels is not None and "masks" in (image.labels.parent.name, image.labels.parent.parent.name)
        for image in seen.images
    )
    if plain and not one and not any("left out" in problem for problem in seen.problems):
        return ()
    regions = _write_regions(seen.images[0], path, overwrite) if one else {}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "mask", "split", "roi"])
    for image in seen.images:
        assert image.labels is not None
        for split, roi in regions.items() or [("", "")]:
            table.writerow([image.path.resolve(), image.labels.resolve(), split, roi and Path(roi).resolve()])
    manifest = path.with_suffix(".csv")
    write_text(manifest, text.getvalue(), overwrite=overwrite)
    return (manifest, *regions.values())


def _write_regions(image: ImageFacts, path: Path, overwrite: bool) -> dict[str, Path]:
    """Three quarters of a scene along its longer side to train on, the last quarter to validate."""
    height, width = image.size.height, image.size.width
    cut = (0.75 * width, height) if width >= height else (width, 0.75 * height)
    low = (cut[0], 0.0) if width >= height else (0.0, cut[1])
    corners = {"train": (0.0, 0.0, *cut), "val": (*low, float(width), float(height))}
    files = {}
    for split, (left, top, right, bottom) in corners.items():
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        files[split] = path.with_suffix(f".{split}.geojson")
        write_text(files[split], json.dumps({"type": "Polygon", "coordinates": [ring]}) + "\n", overwrite=overwrite)
    return files


@dataclass
class _Draft:
    """A configuration in the making."""

    seen: Survey
    name: str
    manifest: Path | None
    guesses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = best_device()
        self.on_cpu = self.device == "cpu"
        self.counted, self.label_map = _counted_classes(self.seen, self.guesses)
        self.names = self._class_names()
        total = sum(facts.pixels for facts in self.counted.values())
        background = self._background()
        self.shares = dict.fromkeys(self.names, 0.0)
        for label, facts in zip(self.names[len(background) :], self.counted.values(), strict=True):
            shared = self.seen.kind not in ("polygons", *_OVERLAPPING)
            area = total if shared else sum(image.size.pixels for image in self.seen.images)
            self.shares[label] = facts.pixels / max(1, area)
        if background:
            self.shares[background[0]] = max(0.0, 1 - sum(self.shares.values()))
        self.val = _validation(self.seen.images, list(self.counted.values()))
        self.patch = self._patch()
        self.views = self._views()

    def text(self) -> str:
        """The configuration as YAML with comments."""
        return "\n".join([*self._head(), *self._data(), *self._foveation(), *self._network(), *self._training(), ""])

    def found(self) -> dict[str, str]:
        """Facts for the terminal."""
        images, sides = self.seen.images, sorted(image.longer for image in self.seen.images)
        sizes = sorted({image.pixel_size for image in images if image.pixel_size})
        facts = {
            "images": f"{len(images)}, longer side {sides[0]} to {sides[-1]} px, {self.seen.bands} bands of "
            f"{images[0].dtype}, values {self.seen.low:g} to {self.seen.high:g}",
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

    def _head(self) -> Iterator[str]:
        yield f"# Written by `foveate init {self.seen.folder}` from what was found there; change what you know better."
        yield f"# Train: foveate train {self.name}.yaml      Every setting: foveate config {self.name}.yaml"
        for problem in (*self.seen.problems, *self.guesses):
            yield f"# Note: {problem}"
        yield f"name: {self.name}"

    def _data(self) -> Iterator[str]:
        images = self.seen.images
        yield "data:"
        if self.manifest is not None:
            why = (
                "one scene: regions of it to train and to validate"
                if len(images) == 1
                else "which labels go with which image"
            )
            yield f"  manifest: {_quoted(str(self.manifest.resolve()))}  # {why}"
        else:
            yield f"  folder: {_quoted(_place(self.seen.folder))}  # {len(images)} images with labels"
        yield "  classes:  # in the order of their ids; names and colours are yours to change"
        for label in self._classes():
            yield f'    - {{name: {_quoted(label.name)}, color: "{label.color}"}}  # {self._about(label.name)}'
        yield from self._meaning()
        yield from self._split()
        yield from self._pixels()
        yield from self._sampling()

    def _meaning(self) -> Iterator[str]:
        if self.seen.kind in _OVERLAPPING:
            why = f"{_OVERLAPPING[self.seen.kind]}: a pixel may belong to several classes, or to none"
            yield f"  overlapping: true  # {why}"
        elif self.seen.kind == "colours":
            yield "  colors: true  # the labels are pictures in these colours"
        elif self.seen.kind == "polygons":
            yield f"  vectors: {{unlabelled: {_quoted(self.names[0])}}}  # pixels outside all polygons; or: ignore"
        elif self.label_map:
            pairs = ", ".join(f"{value}: {label}" for value, label in self.label_map.items())
            yield f"  label_map: {{{pairs}}}  # value in the files: class id; {_IGNORE} is not counted"

    def _split(self) -> Iterator[str]:
        if self.val:
            count = len(self.seen.images)
            why = f"{len(self.val)} of {count} images, drawn so that training keeps every class"
            yield f"  split: {{val: [{', '.join(map(_quoted, self.val))}]}}  # {why}"

    def _pixels(self) -> Iterator[str]:
        seen, dtype = self.seen, self.seen.images[0].dtype
        sizes = [image.pixel_size for image in seen.images if image.pixel_size]
        if sizes and len(sizes) == len(seen.images) and max(sizes) > 1.1 * min(sizes):
            size = length(float(np.median(sizes)))
            yield f'  pixel_size: "{size}"  # pixels differ in size between images; all are read as if of the median'
        if seen.bands not in (1, 3):
            yield f"  bands: {list(range(1, seen.bands + 1))}  # all"
            yield f"  in_channels: {seen.bands}"
        if dtype == "uint8" and seen.bands in (1, 3):
            yield f"  mean: {_ENCODER_MEAN}  # what the encoder's weights were trained with"
            yield f"  std: {_ENCODER_STD}"
            return
        scale = 255.0 if dtype == "uint8" else float(f"{max(abs(seen.low), abs(seen.high), 1e-12):.3g}")
        channels = max(seen.bands, 3) if seen.bands == 1 else seen.bands
        mean, std = ([values[0]] * channels if seen.bands == 1 else values for values in (seen.mean, seen.std))
        yield f"  scale: {scale:g}  # the largest value that was seen"
        yield f"  mean: {[round(value / scale, 4) for value in mean]}  # measured, of the divided values"
        yield f"  std: {[round(max(value / scale, 1e-4), 4) for value in std]}"

    def _sampling(self) -> Iterator[str]:
        rarest = min(self.shares, key=lambda name: self.shares[name])
        balance = 0.8 if self.shares[rarest] < 0.01 else 0.5 if self.shares[rarest] < 0.1 else 0.3
        yield f"  balance: {balance}  # share of places drawn by class: {rarest} has {_percent(self.shares[rarest])}"
        if self._is_slide():
            yield "  tissue: auto  # places are drawn over tissue"
        flips, why = _flips(self.seen)
        colours = ", brightness: 0.2, contrast: 0.2" if self.seen.low >= 0 else ""
        colours += ", saturation: 0.1" if colours and self.seen.bands == 3 else ""
        yield f"  augmentation: {{{flips}{colours}}}  # {why}"

    def _foveation(self) -> Iterator[str]:
        least = min(image.shorter for image in self.seen.images)
        largest = self._largest()
        yield "foveation:"
        yield f"  patch_size: {self.patch}  # pixels of a network's input, for {self._device_text()}"
        yield (
            f"  fields_of_view: {list(self.views)}  # sharp to wide; the largest objects are typically {largest:.0f} "
            f"px wide, the smallest side of an image {least} px"
        )
        megapixels = float(np.median([image.size.megapixels for image in self.seen.images]))
        yield f"  overview_downsample: {16 if megapixels < 8 else 32}"
        if len(self.views) > 1:
            why = "wide everywhere, closer where the wide look is unsure; `foveate tune` chooses how"
            yield f"  estimator: {{name: coarse_first}}  # {why}"
        else:
            yield "  estimator: {name: fixed, index: 0}  # the images leave room for one field of view"

    def _network(self) -> Iterator[str]:
        yield f"network: {{architecture: fpn, encoder: {_ENCODER}, weights: imagenet}}  # small and fast"

    def _training(self) -> Iterator[str]:
        batch = 16 if self.on_cpu else 32
        training = max(1, len(self.seen.images) - len(self.val))
        images = max(n for n in (1, 2, 4) if n <= training)
        places = sum(image.size.pixels for image in self.seen.images) / self.patch**2
        steps = int(np.clip(round(_VISITS * places / batch, -2), 500, 2000 if self.on_cpu else 20_000))
        rare = min(self.shares.values()) < 0.01
        yield "training:"
        yield f"  steps: {steps}  # more is better, up to a point; --resume goes on with more"
        yield f"  locations_per_step: {batch}  # patches of a step, for {self._device_text()}"
        yield f"  images_per_step: {images}"
        yield "  learning_rate: 1.0e-3"
        yield f"  warmup_steps: {min(50, steps // 10)}"
        yield f"  losses: {{cross_entropy: 1.0, dice: {1.0 if rare else 0.5}}}" + (
            "  # a class is rare, which Dice helps" if rare else ""
        )
        yield f"  validate_every: {max(1, steps // 8)}"
        if not self.on_cpu:
            yield "  precision: bf16"

    def _about(self, name: str) -> str:
        first = len(self._background())
        index = self.names.index(name)
        if index < first:
            return f"{_percent(self.shares[name])}, outside all polygons"
        facts = list(self.counted.values())[index - first]
        size = f", objects typically {facts.diameter:.0f} px wide" if facts.diameter else ""
        return f"{_percent(self.shares[name])}, in {len(facts.images)} of {len(self.seen.images)} images{size}"

    def _background(self) -> list[str]:
        return ["background"] if self.seen.kind == "polygons" and "background" not in self.counted else []

    def _class_names(self) -> list[str]:
        if self.seen.kind == "folders":
            return list(map(str, self.counted))
        if self.seen.kind == "polygons":
            return [*self._background(), *map(str, self.counted)]
        return named_classes(
            self.seen.folder, self.seen.kind, {value: facts.pixels for value, facts in self.counted.items()}
        )

    def _classes(self) -> list[ClassConfig]:
        if self.seen.kind != "colours":
            return default_classes(self.names)
        named = zip(self.names, self.counted, strict=True)
        return [ClassConfig(name=name, color=f"#{value:06x}") for name, value in named]

    def _is_slide(self) -> bool:
        return all(image.pixel_size is not None and image.pixel_size < 1e-5 for image in self.seen.images)

    def _patch(self) -> int:
        least = min(image.shorter for image in self.seen.images)
        wanted = 128 if self.on_cpu else 256
        return next((side for side in (256, 128, 64) if side <= wanted and 2 * side <= least), 32)

    def _largest(self) -> float:
        """Typical diameter of the objects of the class that has the largest, those that fill half an image aside."""
        counted = self.names[len(self._background()) :]
        pairs = zip(counted, self.counted.values(), strict=True)
        return max((facts.diameter for name, facts in pairs if self.shares[name] < 0.5), default=0.0)

    def _views(self) -> tuple[int, ...]:
        """The patch itself, and wider ones: the widest twice as wide as large objects, within the images."""
        least = min(image.shorter for image in self.seen.images)
        largest = self._largest()
        widest = 4 * self.patch
        while widest < min(2 * largest, 8 * self.patch):
            widest *= 2
        while widest > max(least, self.patch):
            widest //= 2
        return tuple(sorted({self.patch, max(self.patch, widest // 2), widest}))


def _counted_classes(seen: Survey, guesses: list[str]) -> tuple[dict[Any, ClassFacts], dict[int, int]]:
    """Values that are classes, and the label map, empty where ids are as they should be."""
    if seen.kind == "polygons":
        named = {value: facts for value, facts in seen.classes.items() if value}
        if len(named) < len(seen.classes):
            guesses.append("polygons without a class are not counted")
        return named, {}
    values = list(seen.classes)
    if seen.kind in ("colours", *_OVERLAPPING):
        return dict(seen.classes), {}
    none = [value for value in values if value < 0 or (value == _IGNORE and len(values) > 2)]
    if none:
        guesses.append(f"the values {', '.join(map(str, none))} in the labels are taken for pixels without a label")
    kept = {value: facts for value, facts in seen.classes.items() if value not in none}
    plain = list(kept) == list(range(len(kept)))
    mapping = {} if plain else {value: label for label, value in enumerate(kept)}
    return kept, mapping | ({value: _IGNORE for value in none if value != _IGNORE} if none else {})


def _validation(images: Sequence[ImageFacts], classes: Sequence[ClassFacts]) -> list[str]:
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


def _flips(seen: Survey) -> tuple[str, str]:
    """Whether images may be turned: where up means nothing."""
    if all(image.crs or (image.pixel_size and image.pixel_size < 1e-5) for image in seen.images):
        return "flip: true, rotate90: true", "maps and slides have no up"
    if len(seen.images) < _FEW:
        return (
            "flip: horizontal, rotate90: false",
            "too few images to tell whether up means something; flip: true if not",
        )
    for facts in seen.classes.values():
        change = np.array(facts.upper) - np.array(facts.lower)
        if abs(change.mean()) > 0.02 and _one_sided(change) < 0.05:
            return (
                "flip: horizontal, rotate90: false",
                "upper and lower halves differ in their classes: up means something",
            )
    return "flip: true, rotate90: true", "classes are as frequent in upper as in lower halves: up means nothing"


def _one_sided(change: Any) -> float:
    """How likely chance alone brings so many images to one side: the sign test."""
    moved = change[change != 0]
    return float(stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue) if len(moved) else 1.0


def _place(folder: Path) -> str:
    """The folder as the configuration names it: below the usual root, or in full."""
    root, full = default_root().resolve(), folder.resolve()
    return str(full.relative_to(root)) if full.is_relative_to(root) and full != root else str(full)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "less than 0.1 %"


def _quoted(text: str) -> str:
    return (
        text if re.fullmatch(r"[A-Za-z][\w ./-]*\w|[A-Za-z]", text) and text.lower() not in _WORDS else json.dumps(text)
    )


_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n"}
