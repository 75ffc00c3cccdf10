"""From files to a scene: the layers of an image, its labels and predictions, and what to say about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foveate.data.labels.raster import CLASS, class_files
from foveate.data.labels.shapes import VECTORS
from foveate.data.sections import VectorsConfig
from foveate.errors import ConfigError
from foveate.viewer import layers as make
from foveate.viewer import rendering as draw
from foveate.viewer.inputs import Inputs, Prediction, RasterFacts, raster_facts
from foveate.viewer.polygons import BORDER, Polygons, joined, polygon_answer, polygon_ids, read_polygons
from foveate.viewer.rendering import RIGHT, TOO_MUCH, WRONG, Rendering
from foveate.viewer.scene import ClassEntry, Layer, Options, Scene

MOST_IN_SET = 7  # classes: a bit each, so that all of them are not the code of "not counted"
_WRONG_COLOR, _TOO_MUCH_COLOR = "#e4004f", "#0072b2"
ERRORS = (ClassEntry(WRONG, "differs from the labels", _WRONG_COLOR), ClassEntry(RIGHT, "agrees", ""))
YES_NO_ERRORS = (
    ClassEntry(WRONG, "only in the labels", _WRONG_COLOR),
    ClassEntry(TOO_MUCH, "only in the prediction", _TOO_MUCH_COLOR),
    ClassEntry(RIGHT, "agrees", ""),
)
ALL, ANY = "all classes", "any class"


def build_scene(inputs: Inputs, options: Options | None = None) -> Scene:
    """Make a scene of files."""
    options = options or Options()
    if not 64 <= options.tile <= 1024:
        raise ConfigError(f"a tile side of {options.tile} pixels; allowed are 64 to 1024")
    shown = inputs.image or next((item.classes for item in inputs.predictions if item.classes), inputs.labels)
    if shown is None:
        raise ConfigError("nothing to show; give an image or a prediction")
    base = raster_facts(shown)
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


def _truth(inputs: Inputs, base: RasterFacts, options: Options) -> Truth:
    if inputs.labels is None:
        return Truth()
    found = [raster_facts(item.classes) for item in inputs.predictions if item.classes]
    overlapping = any(facts.overlapping for facts in found) if options.overlapping is None else options.overlapping
    # The names of a run, else of the first class map: labels alone rarely have any.
    legend = make.run_legend(options.classes) if options.classes else make.class_legend(found[0]) if found else None
    return labels_of(inputs.labels, base, legend, overlapping, options)


def _layers(inputs: Inputs, truth: Truth, base: RasterFacts, options: Options) -> Iterator[Layer]:
    if inputs.image is not None:
        yield make.image_layer(base, options.bands)
    yield from truth.layers
    for number, prediction in enumerate(inputs.predictions):
        for layer in _of_prediction(prediction, truth, base, options):
            yield replace(layer, prediction=number)


def _of_prediction(prediction: Prediction, truth: Truth, base: RasterFacts, options: Options) -> Iterator[Layer]:
    if prediction.classes is not None:
        yield from _of_classes(prediction, prediction.classes, base, options)
    for kind, path in prediction.values.items():
        facts = raster_facts(path)
        yield from make.value_layers(kind, facts, make.pixel_of(facts, base), prediction.summary)
    if prediction.classes is not None and raster_facts(prediction.classes).size == base.size:
        yield from error_layers(_found(prediction.classes, options)[0], truth, base)
    if prediction.polygons is not None:
        polygons = read_polygons(prediction.polygons, base, VectorsConfig())
        known = _found(prediction.classes, options)[1] if prediction.classes else make.run_legend(options.classes or ())
        # Where there is a class map, they would be drawn over the same classes.
        shown, legend = prediction.classes is None, polygons.legend(known)
        drawn = Rendering(polygons)
        yield Layer("polygons", "Polygons", drawn, base.size, classes=legend, border=BORDER, shown=shown)
    if prediction.passes is not None:
        facts = raster_facts(prediction.passes)
        yield make.windows_layer(facts, make.pixel_of(facts, base))


def _of_classes(prediction: Prediction, path: Path, base: RasterFacts, options: Options) -> Iterator[Layer]:
    facts = raster_facts(path)
    found, legend = _found(path, options)
    look = Layer(
        "classes", "Classes", draw.ids(path), facts.size, make.pixel_of(facts, base),
        classes=make.with_shares(legend, prediction.summary, facts.size.pixels if facts.overlapping else None),
        shown=True, opacity=1 if base.path == path else 0.55,
    )  # fmt: skip
    yield from overlapping_layers(look, found) if isinstance(found, Mapping) else [look]


def _found(path: Path, options: Options) -> tuple[Rendering | Mapping[str, Rendering], tuple[ClassEntry, ...]]:
    """What a class map says, of overlapping classes by name; and its classes."""
    facts = raster_facts(path)
    legend = make.run_legend(options.classes) if options.classes else make.class_legend(facts)
    if not facts.overlapping:
        return draw.ids(path), legend
    return {entry.name: draw.answer(path, entry.code, unknown=facts.unknown) for entry in legend}, legend


def _notices(inputs: Inputs, layers: Sequence[Layer]) -> Iterator[str]:
    if inputs.image is None and inputs.predictions:
        named = inputs.predictions[0].summary.get("image")
        which = f"image {named}" if named else "image"
        yield f"The {which} was not found; give it on the command line to see it under the classes."
    for polygons in (layer.rendering.draw for layer in layers):
        yield from polygons.notes if isinstance(polygons, Polygons) else ()
    for path in dict.fromkeys(path for layer in layers for path in layer.rendering.paths):
        facts = raster_facts(path)
        if facts.stored_levels == 1 and facts.size.pixels > make.LARGE:
            yield f"{facts.name} has no pyramid, so wide views read all of it: `foveate convert` adds one."


@dataclass(frozen=True, slots=True)
class Truth:
    """What labels say."""

    ids: Rendering | None = None  # class ids, of labels with one class a pixel
    # yes or no by the name of the class, of overlapping classes
    answers: Mapping[str, Rendering] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()  # that show them
    notes: tuple[str, ...] = ()  # what was taken for granted


def overlapping_layers(layer: Layer, answers: Mapping[str, Rendering]) -> Iterator[Layer]:
    """Layers of overlapping classes, of which one is shown at a time: all classes, if they are few, and each alone."""
    entries = [entry for entry in layer.classes if entry.name in answers]
    if 1 < len(entries) <= MOST_IN_SET and max(entry.code for entry in entries) < MOST_IN_SET:
        together = draw.sets([(entry.code, answers[entry.name]) for entry in entries])
        yield replace(layer, rendering=together, option=ALL, sets=True)
    for entry in entries:
        yield replace(layer, rendering=draw.alone(answers[entry.name], entry.code), option=entry.name)


def labels_of(
    path: Path, base: RasterFacts, legend: tuple[ClassEntry, ...] | None, overlapping: bool, options: Options
) -> Truth:
    """Read what labels say."""
    files = _files(path, legend)
    if path.suffix.lower() in VECTORS:
        return _of_polygons(files or path, base, legend or (), overlapping, options)
    if files:
        known = legend or tuple(ClassEntry(code, name, "") for code, name in enumerate(files))
        return _of_masks(files, base, known, options)
    facts = raster_facts(path)
    if legend is not None and facts.bands == len(legend) > 1:
        _check_size(facts, base)
        answers = {entry.name: draw.answer(path, place, options.label_map) for place, entry in enumerate(legend)}
        return Truth(answers=answers, layers=tuple(overlapping_layers(_labels_layer(base, legend), answers)))
    if facts.bands != 1 or facts.dtype.kind not in "bui":
        raise ConfigError(f"{facts.place} has {facts.bands} bands of {facts.dtype}; labels are one band of class ids")
    _check_size(facts, base)
    ids = draw.ids(path, options.label_map)
    return Truth(ids, layers=(_labels_layer(base, legend or make.class_legend(facts), ids),))


def error_layers(found: Rendering | Mapping[str, Rendering], truth: Truth, base: RasterFacts) -> Iterator[Layer]:
    """Where a prediction differs from the labels; nothing where one has one class a pixel and the other any number."""
    if not isinstance(found, Mapping):
        if truth.ids is not None:
            yield Layer("errors", "Errors", draw.differences(found, truth.ids), base.size, classes=ERRORS)
        return
    pairs = {name: (found[name], truth.answers[name]) for name in found if name in truth.answers}
    if 1 < len(pairs) <= MOST_IN_SET:
        both = (draw.sets(list(enumerate(one))) for one in zip(*pairs.values(), strict=True))
        yield Layer("errors", "Errors", draw.differences(*both), base.size, classes=ERRORS, option=ANY)
    for name, pair in pairs.items():
        wrong = draw.differences(*pair, by_kind=True)
        yield Layer("errors", "Errors", wrong, base.size, classes=YES_NO_ERRORS, option=name)


def _files(path: Path, legend: Sequence[ClassEntry] | None) -> dict[str, Path | None]:
    """The file of each class by its name, of a path with `{class}`; empty for other paths."""
    if CLASS not in str(path):
        return {}
    names = [entry.name for entry in legend] if legend else _names(path)
    files = dict(zip(names, class_files(path, names), strict=True))
    if not any(files.values()):
        raise ConfigError(f"no labels at {path}: none of the classes {', '.join(names[:10])} has a file there")
    return files


def _names(path: Path) -> list[str]:
    """What `{class}` stands for, by the files that are there."""
    place = next(number for number, part in enumerate(path.parts) if CLASS in part)
    before, _, after = path.parts[place].partition(CLASS)
    folder = Path(*path.parts[:place])
    entries = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    fits = [name for name in entries if name.startswith(before) and name.endswith(after)]
    names = sorted(name[len(before) : len(name) - len(after)] for name in fits)
    there = [name for name, file in zip(names, class_files(path, names), strict=True) if file is not None]
    if not there:
        raise ConfigError(f"no labels at {path}: no file has this name with a class for {CLASS}")
    return there


def _of_masks(
    files: Mapping[str, Path | None], base: RasterFacts, legend: tuple[ClassEntry, ...], options: Options
) -> Truth:
    for path in filter(None, files.values()):
        _check_size(raster_facts(path), base)
    answers = {
        name: draw.NOWHERE if path is None else draw.answer(path, 0, options.label_map) for name, path in files.items()
    }
    missing = [name for name, path in files.items() if path is None]
    notes = (f"There is no mask of {', '.join(missing)}: taken as not in the image.",) if missing else ()
    known = tuple(entry._replace(color=entry.color or make.category(place)) for place, entry in enumerate(legend))
    return Truth(None, answers, tuple(overlapping_layers(_labels_layer(base, known), answers)), notes)


def _of_polygons(
    files: Path | Mapping[str, Path | None],
    base: RasterFacts,
    legend: tuple[ClassEntry, ...],
    overlapping: bool,
    options: Options,
) -> Truth:
    names, vectors = [entry.name for entry in legend], options.vectors
    if isinstance(files, Path):
        polygons = read_polygons(files, base, vectors, names)
    else:
        polygons = joined({name: read_polygons(path, base, vectors) for name, path in files.items() if path})
    known = polygons.legend(legend)
    layer = replace(_labels_layer(base, known, Rendering(polygons)), border=BORDER)
    if overlapping or not isinstance(files, Path):
        classes = legend or known
        answers = {entry.name: polygon_answer(polygons, entry.name, vectors.unlabelled) for entry in classes}
        return Truth(None, answers, (layer,))
    outside = vectors.unlabelled or (options.classes[0].name if options.classes else None)
    return Truth(polygon_ids(polygons, polygons.ids_by_code(legend, outside)), {}, (layer,))


def _labels_layer(base: RasterFacts, legend: Sequence[ClassEntry], drawn: Rendering = draw.NOWHERE) -> Layer:
    return Layer("labels", "Labels", drawn, base.size, classes=legend, opacity=0.55)


def _check_size(facts: RasterFacts, base: RasterFacts) -> None:
    if facts.size != base.size:
        raise ConfigError(
            f"the labels {facts.place} are {facts.size.text} pixels and {base.place} is {base.size.text}; they must be "
            "the same"
        )
