"""`init`: from a folder of images and labels to a configuration that says why each choice was made."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from foveate.config_base import ConfigTree, with_overrides
from foveate.data.config import DataConfig, default_root
from foveate.data.survey import ImageFacts, Survey
from foveate.errors import ConfigError
from foveate.files import refuse_existing, write_text
from foveate.geometry import IGNORE
from foveate.runs._init_choices import OVERLAPPING, Choices, orientations_of, percent
from foveate.runs.config import RunConfig
from foveate.texts import length

_ENCODER = "tf_efficientnet_lite0"
_ENCODER_MEAN = _ENCODER_STD = [0.5, 0.5, 0.5]  # what its ImageNet weights were trained with
_VISITS = 20  # how often training passes each place, on average
_STEPS, _STEPS_ON_CPU = (500, 20_000), (200, 300)  # two cores take 1 to 1.4 seconds for a step
_READING = ("data.vectors.", "data.plane", "data.nodata")
_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n"}


class Initialised(NamedTuple):
    """What `init` found and wrote."""

    path: Path  # the configuration
    config: RunConfig  # the same, parsed
    found: dict[str, str]  # facts of the data set, each with a name
    problems: tuple[str, ...]  # what was not understood, left out or guessed
    files: tuple[Path, ...]  # what was written


def init(
    folder: Path, out: Path | None = None, *, overrides: Sequence[str] = (), overwrite: bool = False
) -> Initialised:
    """Look at a folder of images and labels, and write a configuration to train on it; see `foveate.init`."""
    name = name_of(folder)
    path = out or Path(f"{name}.yaml")
    refuse_existing(path, overwrite, [".yaml", ".yml"])
    given = _given(overrides)
    seen = Survey(folder, DataConfig.parse({"folder": str(folder), "classes": ["any", "other"], **given}, "init"))
    written = _write_manifest(seen, path, overwrite)
    draft = Draft(seen, name, written[0] if written else None, given)
    text = draft.text(path)
    config = RunConfig.parse(yaml.safe_load(text), source=str(path))
    write_text(path, text, overwrite=overwrite)
    return Initialised(path, config, draft.found(), (*seen.problems, *draft.guesses), (path, *written))


def _given(overrides: Sequence[str]) -> ConfigTree:
    """What is said in advance of how files are read: the entries of `data` by their names."""
    for one in overrides:
        if not one.partition("=")[0].startswith(_READING):
            raise ConfigError(
                f"{one}: init takes {', '.join(_READING)}, which say how files are read; change other settings in the "
                "file that it writes"
            )
    tree = with_overrides({"data": {}}, list(overrides))["data"]
    return dict(tree)


def name_of(folder: Path) -> str:
    """What a run on a folder is called."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-") or "run"


def config_for(folder: Path) -> tuple[Path, Initialised | None]:
    """The configuration of a folder in the current one, and what `init` wrote where it was not there yet."""
    path = Path(f"{name_of(folder)}.yaml")
    return path, None if path.exists() else init(folder, path)


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


class Draft(Choices):
    """The configuration that is written: YAML with a comment on why each choice was made."""

    def text(self, path: Path) -> str:
        """The configuration as YAML with comments, for a file."""
        return "\n".join([*self._head(path), *self._data(), *self._foveation(), *self._training(), ""])

    def _head(self, path: Path) -> Iterator[str]:
        yield f"# Written by `foveate init {self.seen.folder}` from the files there. Correct whatever you know better."
        yield f"# To train: foveate train {path}      To see every setting: foveate config {path}"
        for problem in (*self.seen.problems, *self.guesses):
            yield f"# Note: {problem}"
        yield f"name: {self.name}"

    def _data(self) -> Iterator[str]:
        images = self.seen.images
        yield "data:"
        if self.manifest is not None:
            why = (
                "one scene: one region trains, another validates"
                if len(images) == 1
                else "pairs each image with its labels"
            )
            yield f"  manifest: {_quoted(str(self.manifest.resolve()))}  # {why}"
        else:
            yield f"  folder: {_quoted(_place(self.seen.folder))}  # {len(images)} images with labels"
        if self.seen.band_files:
            listed = ", ".join(map(_quoted, self.seen.band_files))
            yield f"  band_files: [{listed}]  # one file per band; you may change the order"
        yield "  classes:  # in the order of their ids; you may change names and colours"
        for label in self._classes():
            yield f'    - {{name: {_quoted(label.name)}, color: "{label.color}"}}  # {self._about(label.name)}'
        yield from self._meaning()
        for key, value in self.given.items():
            if key != "vectors":
                yield f"  {key}: {_flow(value)}  # as given"
        if self.val:
            why = f"{len(self.val)} of {len(images)} images, chosen so that training keeps every class"
            yield f"  split: {{val: [{', '.join(map(_quoted, self.val))}]}}  # {why}"
        yield from self._pixels()
        yield from self._sampling()

    def _meaning(self) -> Iterator[str]:
        if self.seen.kind in OVERLAPPING:
            why = f"{OVERLAPPING[self.seen.kind]}: a pixel may belong to several classes, or to none"
            yield f"  overlapping: true  # {why}"
        elif self.seen.kind == "colours":
            yield "  label_map: colors  # the masks show the classes in these colours"
        elif self.seen.kind == "polygons":
            how = {"unlabelled": self.names[0], **self.given.get("vectors", {})}
            yield f"  vectors: {_flow(how)}  # unlabelled: the class outside all polygons; or: ignore"
        elif self.label_map:
            pairs = ", ".join(f"{value}: {label}" for value, label in self.label_map.items())
            yield f"  label_map: {{{pairs}}}  # value in the files: class id; {IGNORE} means no label"

    def _pixels(self) -> Iterator[str]:
        seen, dtype = self.seen, self.seen.images[0].dtype
        sizes = [image.pixel_size for image in seen.images if image.pixel_size]
        if sizes and len(sizes) == len(seen.images) and max(sizes) > 1.1 * min(sizes):
            size = length(float(np.median(sizes)))
            yield f'  pixel_size: "{size}"  # pixel sizes differ; all images are resampled to the median'
        if seen.bands not in (1, 3):
            yield f"  bands: {list(range(1, seen.bands + 1))}  # all"
            yield f"  in_channels: {seen.bands}"
        if dtype == "uint8" and seen.bands in (1, 3):
            yield f"  mean: {_ENCODER_MEAN}  # as in the training of the encoder's weights"
            yield f"  std: {_ENCODER_STD}"
            return
        scale = 255.0 if dtype == "uint8" else float(f"{max(abs(seen.low), abs(seen.high), 1e-12):.3g}")
        channels = max(seen.bands, 3) if seen.bands == 1 else seen.bands
        mean, std = ([values[0]] * channels if seen.bands == 1 else values for values in (seen.mean, seen.std))
        yield f"  scale: {scale:g}  # divides the values; the largest one found"
        yield f"  mean: {[float(f'{value / scale:.4g}') for value in mean]}  # measured after the division"
        yield f"  std: {[float(f'{max(value / scale, 1e-6):.4g}') for value in std]}"

    def _sampling(self) -> Iterator[str]:
        rarest = min(self.shares, key=lambda name: self.shares[name])
        balance = 0.8 if self.shares[rarest] < 0.01 else 0.5 if self.shares[rarest] < 0.1 else 0.3
        why = f"share of training places drawn by class, as {rarest} covers {percent(self.shares[rarest])}"
        yield f"  balance: {balance}  # {why}"
        if self._is_slide():
            yield "  tissue: auto  # training places lie on tissue"
        orientations, why = orientations_of(self.seen)
        in_colour = all(image.in_colour for image in self.seen.images)
        jitter = f", color_jitter: [0.2, 0.2{', 0.1' if in_colour else ''}]" if self.seen.low >= 0 else ""
        yield f"  augmentation: {{orientations: {orientations}{jitter}}}  # {why}"

    def _foveation(self) -> Iterator[str]:
        least = min(image.sides[0] for image in self.seen.images)
        yield "foveation:"
        yield f"  patch_size: {self.patch}  # side of the network's input in pixels, for {self._device_text()}"
        yield (
            f"  fields_of_view: {list(self.views)}  # narrow to wide, in pixels: the patch and its doubles, up to four "
            f"times, within the smallest side of an image: {least} px"
        )
        megapixels = float(np.median([image.size.megapixels for image in self.seen.images]))
        yield f"  overview_downsample: {16 if megapixels < 8 else 32}"
        if len(self.views) > 1:
            why = "a wide look everywhere, closer looks where it is unsure; then run `foveate tune`"
            yield f"  estimator: {{name: coarse_first}}  # {why}"
        else:
            yield "  estimator: {name: fixed, index: 0}  # the images are too small for wider fields of view"

    def _training(self) -> Iterator[str]:
        batch = 16 if self.on_cpu else 32
        training = max(1, len(self.seen.images) - len(self.val))
        images = max(n for n in (1, 2, 4) if n <= training)
        places = sum(image.size.pixels for image in self.seen.images) / self.patch**2
        steps = int(np.clip(round(_VISITS * places / batch, -2), *(_STEPS_ON_CPU if self.on_cpu else _STEPS)))
        rare = min(self.shares.values()) < 0.01
        yield f"network: {{architecture: fpn, encoder: {_ENCODER}, weights: imagenet}}  # small and fast"
        yield "training:"
        why = "for a first result within minutes" if self.on_cpu else "more steps help up to a point"
        yield f"  steps: {steps}  # {why}; raise this and use --resume to train longer"
        yield f"  locations_per_step: {batch}  # training places per step, for {self._device_text()}"
        yield f"  images_per_step: {images}"
        yield "  learning_rate: 1.0e-3"
        yield f"  warmup_steps: {min(50, steps // 10)}"
        yield f"  losses: {{cross_entropy: 1.0, dice: {1.0 if rare else 0.5}}}" + (
            "  # Dice helps with a rare class" if rare else ""
        )
        yield f"  validate_every: {max(1, steps // 8)}"
        if not self.on_cpu:
            yield "  precision: bf16"


def _place(folder: Path) -> str:
    """The folder as the configuration names it: below the usual root, or in full."""
    root, full = default_root().resolve(), folder.resolve()
    return str(full.relative_to(root)) if full.is_relative_to(root) and full != root else str(full)


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()


def _quoted(text: str) -> str:
    return (
        text if re.fullmatch(r"[A-Za-z][\w ./-]*\w|[A-Za-z]", text) and text.lower() not in _WORDS else json.dumps(text)
    )
