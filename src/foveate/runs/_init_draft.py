"""The configuration that `init` writes: YAML with a comment on why each choice was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foveate.data.config import default_root
from foveate.data.sections import ClassConfig, default_classes
from foveate.data.survey import Survey
from foveate.devices import available_cores, best_device
from foveate.runs._init_choices import OVERLAPPING, counted_classes, flips_of, named_classes, validation_of
from foveate.texts import length
from foveate.types import IGNORE

_ENCODER = "tf_efficientnet_lite0"
_ENCODER_MEAN = _ENCODER_STD = [0.5, 0.5, 0.5]  # what its ImageNet weights were trained with
_VISITS = 20  # how often training passes each place, on average
_STEPS, _STEPS_ON_CPU = (500, 20_000), (200, 300)  # two cores take 1 to 1.4 seconds for a step
_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n"}


@dataclass
class Draft:
    """A configuration in the making."""

    seen: Survey
    name: str
    manifest: Path | None
    guesses: list[str] = field(default_factory=list)

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
        yield f"# Written by `foveate init {self.seen.folder}` from the files there. Correct whatever you know better."
        yield f"# To train: foveate train {self.name}.yaml      To see every setting: foveate config {self.name}.yaml"
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
        yield from self._split()
        yield from self._pixels()
        yield from self._sampling()

    def _meaning(self) -> Iterator[str]:
        if self.seen.kind in OVERLAPPING:
            why = f"{OVERLAPPING[self.seen.kind]}: a pixel may belong to several classes, or to none"
            yield f"  overlapping: true  # {why}"
        elif self.seen.kind == "colours":
            yield "  colors: true  # the masks show the classes in these colours"
        elif self.seen.kind == "polygons":
            yield f"  vectors: {{unlabelled: {_quoted(self.names[0])}}}  # the class outside all polygons; or: ignore"
        elif self.label_map:
            pairs = ", ".join(f"{value}: {label}" for value, label in self.label_map.items())
            yield f"  label_map: {{{pairs}}}  # value in the files: class id; {IGNORE} means no label"

    def _split(self) -> Iterator[str]:
        if self.val:
            count = len(self.seen.images)
            why = f"{len(self.val)} of {count} images, chosen so that training keeps every class"
            yield f"  split: {{val: [{', '.join(map(_quoted, self.val))}]}}  # {why}"

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
        yield f"  mean: {[round(value / scale, 4) for value in mean]}  # measured after the division"
        yield f"  std: {[round(max(value / scale, 1e-4), 4) for value in std]}"

    def _sampling(self) -> Iterator[str]:
        rarest = min(self.shares, key=lambda name: self.shares[name])
        balance = 0.8 if self.shares[rarest] < 0.01 else 0.5 if self.shares[rarest] < 0.1 else 0.3
        why = f"share of training places drawn by class, as {rarest} covers {_percent(self.shares[rarest])}"
        yield f"  balance: {balance}  # {why}"
        if self._is_slide():
            yield "  tissue: auto  # training places lie on tissue"
        flips, why = flips_of(self.seen)
        colours = ", brightness: 0.2, contrast: 0.2" if self.seen.low >= 0 else ""
        colours += ", saturation: 0.1" if colours and self.seen.bands == 3 else ""
        yield f"  augmentation: {{{flips}{colours}}}  # {why}"

    def _foveation(self) -> Iterator[str]:
        least = min(image.shorter for image in self.seen.images)
        largest = self._largest()
        yield "foveation:"
        yield f"  patch_size: {self.patch}  # side of the network's input in pixels, for {self._device_text()}"
        yield (
            f"  fields_of_view: {list(self.views)}  # narrow to wide, in pixels; the largest objects: typically "
            f"{largest:.0f} px; the smallest side of an image: {least} px"
        )
        megapixels = float(np.median([image.size.megapixels for image in self.seen.images]))
        yield f"  overview_downsample: {16 if megapixels < 8 else 32}"
        if len(self.views) > 1:
            why = "a wide look everywhere, closer looks where it is unsure; then run `foveate tune`"
            yield f"  estimator: {{name: coarse_first}}  # {why}"
        else:
            yield "  estimator: {name: fixed, index: 0}  # the images are too small for wider fields of view"

    def _network(self) -> Iterator[str]:
        yield f"network: {{architecture: fpn, encoder: {_ENCODER}, weights: imagenet}}  # small and fast"

    def _training(self) -> Iterator[str]:
        batch = 16 if self.on_cpu else 32
        training = max(1, len(self.seen.images) - len(self.val))
        images = max(n for n in (1, 2, 4) if n <= training)
        places = sum(image.size.pixels for image in self.seen.images) / self.patch**2
        steps = int(np.clip(round(_VISITS * places / batch, -2), *(_STEPS_ON_CPU if self.on_cpu else _STEPS)))
        rare = min(self.shares.values()) < 0.01
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
