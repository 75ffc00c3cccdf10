"""From files to a scene: which layers there are, and what to say about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from foveate.data.sections import VectorsConfig
from foveate.errors import ConfigError
from foveate.viewer.answers import Band
from foveate.viewer.inputs import Inputs, Prediction, RasterFacts, raster_facts
from foveate.viewer.labels import Truth, error_layers, labels_of, overlapping_layers
from foveate.viewer.layers import (
    LARGE,
    class_legend,
    image_layer,
    pixel_of,
    run_legend,
    value_layers,
    windows_layer,
    with_shares,
)  # fmt: skip
from foveate.viewer.polygons import BORDER, Polygons, read_polygons
from foveate.viewer.rendering import Ids, Rendering
from foveate.viewer.scene import ClassEntry, Layer, Options, Scene


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
    truth = _truth(inputs, base, options)
    layers = tuple(_layers(inputs, truth, base, options))
    return Scene(
        title=base.name,
        size=base.size,
        layers=layers,
        predictions=tuple(item.name for item in inputs.predictions),
        resolution=base.resolution,
        georeference=base.georeference,
        notices=(*_notices(inputs, layers), *truth.notes),
        tile=options.tile,
    )


def _base_of(inputs: Inputs) -> Path:
    found = inputs.image or next((item.classes for item in inputs.predictions if item.classes), inputs.labels)
    if found is None:
        raise ConfigError("nothing to show; give an image or a prediction")
    return found


def _truth(inputs: Inputs, base: RasterFacts, options: Options) -> Truth:
    if inputs.labels is None:
        return Truth()
    found = [raster_facts(item.classes) for item in inputs.predictions if item.classes]
    overlapping = any(facts.overlapping for facts in found) if options.overlapping is None else options.overlapping
    # The names of a run, else of the first class map: labels alone rarely have any.
    legend = run_legend(options.classes) if options.classes else class_legend(found[0]) if found else None
    return labels_of(inputs.labels, base, legend, overlapping, options)


def _layers(inputs: Inputs, truth: Truth, base: RasterFacts, options: Options) -> Iterator[Layer]:
    if inputs.image is not None:
        yield image_layer(base, options.bands)
    yield from truth.layers
    for number, prediction in enumerate(inputs.predictions):
        for layer in _of_prediction(prediction, truth, base, options):
            yield replace(layer, prediction=number)


def _of_prediction(prediction: Prediction, truth: Truth, base: RasterFacts, options: Options) -> Iterator[Layer]:
    if prediction.classes is not None:
        yield from _of_classes(prediction, prediction.classes, base, options)
    for kind, path in prediction.values.items():
        facts = raster_facts(path)
        yield from value_layers(kind, facts, pixel_of(facts, base), prediction.summary)
    if prediction.classes is not None and raster_facts(prediction.classes).size == base.size:
        found, _ = _found(prediction.classes, options)
        yield from error_layers(found, truth, base)
    if prediction.polygons is not None:
        polygons = read_polygons(prediction.polygons, base, VectorsConfig())
        known = run_legend(options.classes or ()) or _legend_of(prediction)
        # Where there is a class map, they would be drawn over the same classes.
        shown = prediction.classes is None
        legend = polygons.legend(known)
        yield Layer("polygons", "Polygons", polygons, base.size, classes=legend, border=BORDER, shown=shown)
    if prediction.passes is not None:
        facts = raster_facts(prediction.passes)
        yield windows_layer(facts, pixel_of(facts, base))


def _of_classes(prediction: Prediction, path: Path, base: RasterFacts, options: Options) -> Iterator[Layer]:
    facts = raster_facts(path)
    found, legend = _found(path, options)
    look = Layer(
        "classes", "Classes", Ids(path), facts.size, pixel_of(facts, base),
        classes=with_shares(legend, prediction.summary, facts.size.pixels if facts.overlapping else None),
        shown=True, opacity=1 if base.path == path else 0.55,
    )  # fmt: skip
    yield from overlapping_layers(look, found) if isinstance(found, Mapping) else [look]


def _found(path: Path, options: Options) -> tuple[Rendering | Mapping[str, Rendering], tuple[ClassEntry, ...]]:
    """What a class map says, of overlapping classes by name; and its classes."""
    facts = raster_facts(path)
    legend = run_legend(options.classes) if options.classes else class_legend(facts)
    if not facts.overlapping:
        return Ids(path), legend
    return {entry.name: Band(path, entry.code, unknown=facts.unknown) for entry in legend}, legend


def _legend_of(prediction: Prediction) -> tuple[ClassEntry, ...]:
    return class_legend(raster_facts(prediction.classes)) if prediction.classes else ()


def _notices(inputs: Inputs, layers: Sequence[Layer]) -> Iterator[str]:
    if inputs.image is None and inputs.predictions:
        named = inputs.predictions[0].summary.get("image")
        which = f"image {named}" if named else "image"
        yield f"The {which} was not found; give it on the command line to see it under the classes."
    for polygons in (layer.rendering for layer in layers if isinstance(layer.rendering, Polygons)):
        yield from polygons.notes
    for path in dict.fromkeys(path for layer in layers for path in layer.rendering.paths):
        facts = raster_facts(path)
        if facts.stored_levels == 1 and facts.size.pixels > LARGE:
            yield f"{facts.name} has no pyramid, so wide views read all of it: `foveate convert` adds one."
