"""From files to a scene: which layers there are, how each is drawn, and what to say about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.labels.shapes import VECTORS
from foveate.data.readers import open_image
from foveate.data.sections import ClassConfig, VectorsConfig
from foveate.errors import ConfigError
from foveate.geometry import Size, Window, ceil_div
from foveate.viewer.facts import RasterFacts, raster_facts
from foveate.viewer.inputs import Inputs, Prediction
from foveate.viewer.layers import value_layers, windows_layer
from foveate.viewer.legend import ERRORS, class_legend, run_legend, with_shares
from foveate.viewer.polygons import BORDER, PolygonIds, Polygons, read_polygons
from foveate.viewer.rendering import Errors, Ids, Picture, Rendering, YesNo
from foveate.viewer.scene import ClassEntry, Layer, Scene, Tone

_LARGE = 50e6  # pixels from which a raster without a pyramid is slow to look at
_SAMPLE = 1024
_DARK = 0.45  # an image of bytes is dark where nearly all are below this share of 255
_MIDDLE = 0.25


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about the files beside their names.

    Attributes:
        bands: 1-based numbers of the bands shown as red, green and blue, or one for grey; the first three when None.
        classes: names and colours; those of the class maps when None.
        label_map: value in the labels -> class id; the values are ids when None.
        vectors: how labels that are polygons are read.
        tile: side of the tiles, 64 to 1024.
    """

    bands: tuple[int, ...] | None = None
    classes: Sequence[ClassConfig] | None = None
    label_map: dict[int, int] | None = None
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
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
    truth: Rendering | None = None
    if inputs.labels is not None:
        truth, labels = _labels(inputs.labels, base, _legend_for_labels(inputs, options), options)
        yield from labels
    for number, prediction in enumerate(inputs.predictions):
        for layer in _of_prediction(prediction, truth, base, options):
            yield replace(layer, prediction=number)


def _of_prediction(
    prediction: Prediction, truth: Rendering | None, base: RasterFacts, options: Options
) -> Iterator[Layer]:
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
    if prediction.polygons is not None:
        polygons = read_polygons(prediction.polygons, base, VectorsConfig())
        known = run_legend(options.classes or ()) or _legend_of(prediction)
        # Where there is a class map, they would be drawn over the same classes.
        shown = prediction.classes is None
        legend = polygons.legend(known)
        yield Layer("polygons", "Polygons", polygons, base.size, classes=legend, border=BORDER, shown=shown)
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


def _legend_of(prediction: Prediction) -> tuple[ClassEntry, ...]:
    return class_legend(raster_facts(prediction.classes)) if prediction.classes else ()


def _image_layer(facts: RasterFacts, bands: Sequence[int] | None) -> Layer:
    chosen = tuple(bands or range(1, min(3, facts.bands) + 1))
    if len(chosen) not in (1, 3) or not all(1 <= band <= facts.bands for band in chosen):
        chosen = chosen[:1] if bands is None else _refused(chosen, facts)
    red, green, blue = chosen if len(chosen) == 3 else chosen * 3
    tone = _tone(facts, chosen)
    picture = Picture(facts.path, (red, green, blue), tone.low, tone.high)
    return Layer("image", "Image", picture, facts.size, tone=tone, shown=True)


def _refused(bands: Sequence[int], facts: RasterFacts) -> tuple[int, ...]:
    given = ", ".join(map(str, bands))
    raise ConfigError(f"--bands {given}: give one or three numbers from 1 to {facts.bands}, the bands of {facts.place}")


def _tone(facts: RasterFacts, bands: Sequence[int]) -> Tone:
    """Bytes as they are, unless all are dark; other values from the 2nd to the 98th percentile."""
    if facts.dtype == np.uint8 and facts.stored_levels == 0 and facts.size.pixels > _LARGE:
        return Tone()  # it would be decoded once more
    values = _sampled(facts, bands)
    if facts.dtype == np.uint8:
        shares, tone = values / 255, Tone()
        if not shares.size or np.percentile(shares, 98) > _DARK:
            return tone
        black, white = np.percentile(shares, [2, 98])
        tone = tone._replace(black=float(black), white=float(max(white, black + 0.02)))
    else:
        low, high = np.percentile(values, [2, 98]) if values.size else (0, 1)
        tone = Tone(float(low), float(max(high, low + 1e-9)))
        shares = (values - tone.low) / (tone.high - tone.low)
    middle = (np.median(shares) - tone.black) / (tone.white - tone.black) if shares.size else _MIDDLE
    # The middle value becomes a dark grey, unless it is brighter; more than twice would show little but noise.
    gamma = np.log(np.clip(middle, 1e-3, _MIDDLE)) / np.log(_MIDDLE)
    return tone._replace(gamma=float(min(gamma, 2)))


def _sampled(facts: RasterFacts, bands: Sequence[int]) -> NDArray[np.float64]:
    """Values that mean something, of the whole image, or of its middle where the whole would take long to read."""
    window = Window.of(facts.size)
    if facts.stored_levels <= 1 and facts.size.pixels > _LARGE:
        window = window.centred(_SAMPLE)
    size = Size(min(_SAMPLE, window.height), min(_SAMPLE, window.width))
    with open_image(facts.path) as reader:
        pixels, there = reader.read_known(window, size)
    wanted = [band - 1 for band in bands]
    known = pixels[wanted] if there is None else pixels[wanted][there[wanted]]
    values: NDArray[np.float64] = known.reshape(-1).astype(np.float64)
    return values[np.isfinite(values)]


def _labels(
    path: Path, base: RasterFacts, legend: tuple[ClassEntry, ...] | None, options: Options
) -> tuple[Rendering, list[Layer]]:
    """What the class ids of the labels are, and their layers."""
    if path.suffix.lower() in VECTORS:
        names = [entry.name for entry in legend or ()]
        polygons = read_polygons(path, base, options.vectors, names)
        outside = options.vectors.unlabelled or (options.classes[0].name if options.classes else None)
        known = polygons.legend(legend or ())
        layer = Layer("labels", "Labels", polygons, base.size, classes=known, border=BORDER, opacity=0.55)
        return PolygonIds(polygons, polygons.ids_by_code(legend or (), outside)), [layer]
    truth, facts = (
        Ids(path, None if options.label_map is None else tuple(options.label_map.items())),
        raster_facts(path),
    )
    if legend is not None and facts.bands == len(legend) > 1 and facts.size == base.size:
        look = Layer("labels", "Labels", truth, facts.size, classes=legend, opacity=0.55)
        return truth, list(_each_class(look, facts))
    return truth, [_labels_layer(truth, base, legend)]


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
    for polygons in (layer.rendering for layer in layers if isinstance(layer.rendering, Polygons)):
        yield from polygons.notes
    for path in dict.fromkeys(path for layer in layers for path in layer.rendering.paths):
        facts = raster_facts(path)
        if facts.stored_levels == 1 and facts.size.pixels > _LARGE:
            yield f"{facts.name} has no pyramid, so wide views read all of it: `foveate convert` adds one."
