"""From files to a scene: which layers there are, how each is drawn, and what to say about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foveate.data.config import ClassConfig
from foveate.data.readers import open_image
from foveate.errors import ConfigError
from foveate.geometry import Size, Window, ceil_div
from foveate.viewer.facts import RasterFacts, raster_facts
from foveate.viewer.inputs import Inputs, Prediction
from foveate.viewer.layers import value_layers, windows_layer
from foveate.viewer.legend import ERRORS, class_legend, run_legend, with_shares
from foveate.viewer.rendering import Errors, Ids, Picture, YesNo
from foveate.viewer.scene import ClassEntry, Layer, Scene

_LARGE = 50e6  # pixels from which a raster without a pyramid is slow to look at
_SAMPLE = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about the files beside their names.

    Attributes:
        bands: 1-based numbers of the bands shown as red, green and blue, or one for grey; the first three when None.
        classes: names and colours; those of the class maps when None.
        label_map: value in the labels -> class id; the values are ids when None.
        tile: side of the tiles, 64 to 1024.
    """

    bands: tuple[int, ...] | None = None
    classes: Sequence[ClassConfig] | None = None
    label_map: dict[int, int] | None = None
    tile: int = 256


def build_scene(inputs: Inputs, options: Options | None = None) -> Scene:
    """Make a scene of files.

    Raises:
        ConfigError: when a raster lies on another grid than the image, or an option does not fit.
        ImageReadError, UnsupportedImageError: when a file cannot be read.
    """
    options = options or Options()
    if not 64 <= options.tile <= 1024:
        raise ConfigError(f"a tile side of {options.tile} pixels; allowed are 64 to 1024")
    base = raster_facts(_base_of(inputs))
    layers = tuple(_layers(inputs, base, options))
    return Scene(
        title=base.name,
        size=base.size,
        layers=layers,
        predictions=tuple(item.name for item in inputs.predictions),
        resolution=base.resolution,
        georeference=base.georeference,
        notices=tuple(_notices(inputs, layers)),
        tile=options.tile,
    )


def _base_of(inputs: Inputs) -> Path:
    found = inputs.image or next((item.classes for item in inputs.predictions if item.classes), inputs.labels)
    if found is None:
        raise ConfigError("nothing to show; give an image or a prediction")
    return found


def _layers(inputs: Inputs, base: RasterFacts, options: Options) -> Iterator[Layer]:
    if inputs.image is not None:
        yield _image_layer(base, options.bands)
    truth = None
    if inputs.labels is not None:
        label_map = None if options.label_map is None else tuple(options.label_map.items())
        truth, legend = Ids(inputs.labels, label_map), _legend_for_labels(inputs, options)
        facts = raster_facts(inputs.labels)
        if legend is not None and facts.bands == len(legend) > 1 and facts.size == base.size:
            look = Layer("labels", "Labels", truth, facts.size, classes=legend, opacity=0.55)
            yield from _each_class(look, facts)
        else:
            yield _labels_layer(truth, base, legend)
    for number, prediction in enumerate(inputs.predictions):
        for layer in _of_prediction(prediction, truth, base, options):
            yield replace(layer, prediction=number)


def _of_prediction(prediction: Prediction, truth: Ids | None, base: RasterFacts, options: Options) -> Iterator[Layer]:
    if prediction.classes is not None:
        facts = raster_facts(prediction.classes)
        legend = run_legend(options.classes) if options.classes else class_legend(facts)
        opaque = base.path == prediction.classes
        look = Layer(
            "classes", "Classes", Ids(prediction.classes), facts.size, _pixel(facts, base),
            classes=with_shares(legend, prediction.summary, facts.size.pixels if facts.overlapping else None),
            shown=True, opacity=1 if opaque else 0.55,
        )  # fmt: skip
        yield from _each_class(look, facts) if facts.overlapping else [look]
    for kind, path in prediction.values.items():
        facts = raster_facts(path)
        yield from value_layers(kind, facts, _pixel(facts, base), prediction.summary)
    if truth is not None and prediction.classes is not None and _comparable(raster_facts(prediction.classes), base):
        yield Layer("errors", "Errors", Errors(Ids(prediction.classes), truth), base.size, classes=ERRORS)
    if prediction.passes is not None:
        facts = raster_facts(prediction.passes)
        yield windows_layer(facts, _pixel(facts, base))


def _each_class(layer: Layer, facts: RasterFacts) -> Iterator[Layer]:
    """A layer for each of some overlapping classes, of which one is shown at a time."""
    for entry in layer.classes:
        alone = YesNo(facts.path, entry.code, facts.unknown)
        yield replace(layer, rendering=alone, option=entry.name)


def _comparable(classes: RasterFacts, base: RasterFacts) -> bool:
    """Whether a class map can be compared with labels, pixel by pixel."""
    return classes.size == base.size and not classes.overlapping


def _image_layer(facts: RasterFacts, bands: Sequence[int] | None) -> Layer:
    chosen = tuple(bands or range(1, min(3, facts.bands) + 1))
    if len(chosen) not in (1, 3) or not all(1 <= band <= facts.bands for band in chosen):
        chosen = chosen[:1] if bands is None else _refused(chosen, facts)
    red, green, blue = chosen if len(chosen) == 3 else chosen * 3
    low, high = (0.0, 255.0) if facts.dtype == np.uint8 else _contrast(facts, chosen)
    return Layer("image", "Image", Picture(facts.path, (red, green, blue), low, high), facts.size, shown=True)


def _refused(bands: Sequence[int], facts: RasterFacts) -> tuple[int, ...]:
    given = ", ".join(map(str, bands))
    raise ConfigError(f"--bands {given}: give one or three numbers from 1 to {facts.bands}, the bands of {facts.place}")


def _contrast(facts: RasterFacts, bands: Sequence[int]) -> tuple[float, float]:
    """The 2nd to 98th percentile over the whole image, or over its middle where the whole would take long to read."""
    window = Window.of(facts.size)
    if facts.stored_levels == 1 and facts.size.pixels > _LARGE:
        window = window.centred(_SAMPLE)
    size = Size(min(_SAMPLE, window.height), min(_SAMPLE, window.width))
    with open_image(facts.path) as reader:
        pixels, there = reader.read_known(window, size)
    wanted = [band - 1 for band in bands]
    known = pixels[wanted] if there is None else pixels[wanted][there[wanted]]
    low, high = np.percentile(known, [2, 98]) if known.size else (0, 1)
    return float(low), float(max(high, low + 1e-9))


def _labels_layer(truth: Ids, base: RasterFacts, legend: tuple[ClassEntry, ...] | None) -> Layer:
    facts = raster_facts(truth.path)
    if facts.bands != 1 or facts.dtype.kind not in "bui":
        raise ConfigError(f"{facts.place} has {facts.bands} bands of {facts.dtype}; labels are one band of class ids")
    if facts.size != base.size:
        raise ConfigError(
            f"the labels {facts.place} are {_shown(facts.size)} pixels and {base.place} is {_shown(base.size)}; "
            "they must be the same"
        )
    return Layer("labels", "Labels", truth, facts.size, classes=legend or class_legend(facts), opacity=0.55)


def _legend_for_labels(inputs: Inputs, options: Options) -> tuple[ClassEntry, ...] | None:
    """Of the run, else of the first class map: labels alone rarely have names."""
    if options.classes:
        return run_legend(options.classes)
    first = next((item.classes for item in inputs.predictions if item.classes), None)
    return class_legend(raster_facts(first)) if first else None


def _pixel(facts: RasterFacts, base: RasterFacts) -> float:
    """Side of a pixel of a raster in base pixels: as its tag says, else the one that makes it cover the base grid."""
    tagged = facts.tags.get("cell", "")
    for side in (int(tagged) if tagged.isdecimal() else 0, round(base.size.width / facts.size.width)):
        if side and facts.size == Size(ceil_div(base.size.height, side), ceil_div(base.size.width, side)):
            return side
    across, down = base.size.width / facts.size.width, base.size.height / facts.size.height
    if abs(across - down) > max(across / facts.size.width, down / facts.size.height):
        raise ConfigError(
            f"{facts.place} is {_shown(facts.size)} pixels and {base.place} is {_shown(base.size)}: "
            "they do not show the same place"
        )
    return across


def _shown(size: Size) -> str:
    return f"{size.width} x {size.height}"


def _notices(inputs: Inputs, layers: Sequence[Layer]) -> Iterator[str]:
    if inputs.image is None and inputs.predictions:
        named = inputs.predictions[0].summary.get("image")
        which = f"image {named}" if named else "image"
        yield f"The {which} was not found; give it on the command line to see it under the classes."
    for path in dict.fromkeys(path for layer in layers for path in layer.rendering.paths):
        facts = raster_facts(path)
        if facts.stored_levels == 1 and facts.size.pixels > _LARGE:
            yield f"{facts.name} has no pyramid, so wide views read all of it: `foveate convert` adds one."
