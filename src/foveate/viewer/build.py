"""From files to a scene: the layers of an image, its labels and predictions, and what to say about them."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

from foveate.data import VECTORS, VectorsConfig
from foveate.data.labels.raster import CLASS, class_files
from foveate.errors import ConfigError
from foveate.viewer import rendering as draw
from foveate.viewer import scene as make
from foveate.viewer.inputs import Inputs, Prediction, RasterFacts, pixel_of, raster_facts
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


@dataclass(frozen=True, slots=True)
class Classes:
    """What a class map or labels say of each pixel."""

    ids: Rendering | None = None  # class ids, where a pixel has one class
    answers: Mapping[str, Rendering] = field(default_factory=dict)  # yes or no by class, where they overlap

    def layers(self, look: Layer) -> Iterator[Layer]:
        """As a layer; overlapping classes as some, of which one is shown at a time: all, if they are few, and each."""
        if self.ids is not None:
            yield replace(look, rendering=self.ids)
        entries = [entry for entry in look.classes if entry.name in self.answers]
        if 1 < len(entries) <= MOST_IN_SET and max(entry.code for entry in entries) < MOST_IN_SET:
            together = draw.sets([(entry.code, self.answers[entry.name]) for entry in entries])
            yield replace(look, rendering=together, option=ALL, sets=True)
        for entry in entries:
            yield replace(look, rendering=draw.alone(self.answers[entry.name], entry.code), option=entry.name)

    def errors(self, truth: Self, look: Layer) -> Iterator[Layer]:
        """Where it differs from labels; nothing where one has one class a pixel and the other any number."""
        if self.ids is not None and truth.ids is not None:
            yield replace(look, rendering=draw.differences(self.ids, truth.ids), classes=ERRORS)
        pairs = {name: (self.answers[name], truth.answers[name]) for name in self.answers if name in truth.answers}
        if 1 < len(pairs) <= MOST_IN_SET:
            both = (draw.sets(list(enumerate(one))) for one in zip(*pairs.values(), strict=True))
            yield replace(look, rendering=draw.differences(*both), classes=ERRORS, option=ANY)
        for name, pair in pairs.items():
            wrong = draw.differences(*pair, by_kind=True)
            yield replace(look, rendering=wrong, classes=YES_NO_ERRORS, option=name)


class Labels(NamedTuple):
    """Labels of the image."""

    classes: Classes = Classes()
    layers: Sequence[Layer] = ()  # that show them
    notes: Sequence[str] = ()  # what was taken for granted


def build_scene(inputs: Inputs, options: Options | None = None) -> Scene:
    """Make a scene of files."""
    options = options or Options()
    if not 64 <= options.tile <= 1024:
        raise ConfigError(f"a tile side of {options.tile} pixels; allowed are 64 to 1024")
    shown = inputs.image or next((item.classes for item in inputs.predictions if item.classes), inputs.labels)
    if shown is None:
        raise ConfigError("nothing to show; give an image or a prediction")
    base = raster_facts(shown)
    labels = Labels() if inputs.labels is None else _labels(inputs.labels, inputs, base, options)
    layers = [] if inputs.image is None else [make.image_layer(base, options.bands)]
    layers += labels.layers
    for number, prediction in enumerate(inputs.predictions):
        made = _of_prediction(prediction, labels.classes, base, options)
        layers += [replace(layer, prediction=number) for layer in made]
    return Scene(
        title=base.name,
        size=base.size,
        layers=tuple(layers),
        predictions=tuple(item.name for item in inputs.predictions),
        resolution=base.resolution,
        georeference=base.georeference,
        notices=(*_notices(inputs, layers), *_bands_shown(inputs, base, options), *labels.notes),
        tile=options.tile,
    )


def _of_prediction(prediction: Prediction, truth: Classes, base: RasterFacts, options: Options) -> Iterator[Layer]:
    found, known = Classes(), make.run_legend(options.classes or ())
    if prediction.classes is not None:
        facts = raster_facts(prediction.classes)
        known = known or make.class_legend(facts)
        found = _of_class_map(facts, known)
        look = Layer(
            "classes", "Classes", draw.NOWHERE, facts.size, pixel_of(facts, base),
            classes=make.with_shares(known, prediction.summary, facts.size.pixels if facts.overlapping else None),
            shown=True, opacity=1 if base.path == facts.path else 0.55,
        )  # fmt: skip
        yield from found.layers(look)
        found = found if facts.size == base.size else Classes()
    for kind, path in prediction.values.items():
        facts = raster_facts(path)
        yield from make.value_layers(kind, facts, pixel_of(facts, base), prediction.summary)
    yield from found.errors(truth, Layer("errors", "Errors", draw.NOWHERE, base.size))
    if prediction.polygons is not None:
        polygons = read_polygons(prediction.polygons, base, VectorsConfig())
        # Where there is a class map, they would be drawn over the same classes.
        shown, legend = prediction.classes is None, polygons.legend(known)
        drawn = Rendering(polygons)
        yield Layer("polygons", "Polygons", drawn, base.size, classes=legend, border=BORDER, shown=shown)
    if prediction.passes is not None:
        facts = raster_facts(prediction.passes)
        yield make.windows_layer(facts, pixel_of(facts, base))


def _of_class_map(facts: RasterFacts, legend: Sequence[ClassEntry]) -> Classes:
    if not facts.overlapping:
        return Classes(draw.ids(facts.path))
    return Classes(answers={entry.name: draw.answer(facts.path, entry.code, unknown=facts.unknown) for entry in legend})


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


def _bands_shown(inputs: Inputs, base: RasterFacts, options: Options) -> Iterator[str]:
    """Which bands of the image are its colours, if nobody chose them and the file does not say red, green, blue."""
    shown, names = make.bands_shown(base, None), base.band_names
    plain = base.bands == 1 or (base.bands == 3 and (not any(names) or names[:3] == ("red", "green", "blue")))
    if inputs.image is None or options.bands is not None or plain:
        return
    texts = [f"{band} ({names[band - 1]})" if any(names) else str(band) for band in shown]
    one = f"Band {texts[0]} is shown" if len(shown) == 1 else f"Bands {', '.join(texts)} are shown as red, green, blue"
    three = ", --bands 3,2,1 three as colours" if base.bands > 2 else ""
    yield f"{one}, of {base.bands}; --bands 2 shows one alone{three}."


def _labels(path: Path, inputs: Inputs, base: RasterFacts, options: Options) -> Labels:
    """Labels of any form."""
    found = [raster_facts(item.classes) for item in inputs.predictions if item.classes]
    overlapping = any(facts.overlapping for facts in found) if options.overlapping is None else options.overlapping
    # The names of a run, else of the first class map: labels alone rarely have any.
    legend = make.run_legend(options.classes or ()) or (make.class_legend(found[0]) if found else ())
    look = Layer("labels", "Labels", draw.NOWHERE, base.size, classes=legend, opacity=0.55)
    files = _files(path, legend)
    if path.suffix.lower() in VECTORS:
        return _of_polygons(files or path, base, look, overlapping, options)
    if files:
        return _of_masks(files, base, look, options)
    facts = raster_facts(path)
    if facts.bands == len(legend) > 1:
        answers = {entry.name: draw.answer(path, place, options.label_map) for place, entry in enumerate(legend)}
        classes = Classes(answers=answers)
    elif facts.bands == 1 and facts.dtype.kind in "bui":
        look = replace(look, classes=legend or make.class_legend(facts))
        classes = Classes(draw.ids(path, options.label_map))
    else:
        raise ConfigError(f"{facts.place} has {facts.bands} bands of {facts.dtype}; labels are one band of class ids")
    _check_sizes([path], base)
    return Labels(classes, tuple(classes.layers(look)))


def _files(path: Path, legend: Sequence[ClassEntry]) -> dict[str, Path | None]:
    """The file of each class by its name, of a path with `{class}`; empty for other paths."""
    if CLASS not in str(path):
        return {}
    names = [entry.name for entry in legend] or _names(path)
    files = dict(zip(names, class_files(path, names), strict=True))
    if not any(files.values()):
        raise ConfigError(f"no labels at {path}: none of the classes {', '.join(names[:10])} has a file there")
    return files


def _names(path: Path) -> list[str]:
    """What `{class}` stands for, by the files that are there."""
    place = next(number for number, part in enumerate(path.parts) if CLASS in part)
    before, _, after = path.parts[place].partition(CLASS)
    found = Path(*path.parts[:place]).glob(f"{glob.escape(before)}*{glob.escape(after)}")
    names = sorted(entry.name[len(before) : len(entry.name) - len(after)] for entry in found)
    there = [name for name, file in zip(names, class_files(path, names), strict=True) if file is not None]
    if not there:
        raise ConfigError(f"no labels at {path}: no file has this name with a class for {CLASS}")
    return there


def _of_masks(files: Mapping[str, Path | None], base: RasterFacts, look: Layer, options: Options) -> Labels:
    _check_sizes(filter(None, files.values()), base)
    classes = Classes(
        answers={
            name: draw.NOWHERE if path is None else draw.answer(path, 0, options.label_map)
            for name, path in files.items()
        }
    )
    missing = [name for name, path in files.items() if path is None]
    notes = (f"There is no mask of {', '.join(missing)}: taken as not in the image.",) if missing else ()
    legend = look.classes or [ClassEntry(code, name, "") for code, name in enumerate(files)]
    known = [entry._replace(color=entry.color or make.category(place)) for place, entry in enumerate(legend)]
    return Labels(classes, tuple(classes.layers(replace(look, classes=known))), notes)


def _of_polygons(
    files: Path | Mapping[str, Path | None], base: RasterFacts, look: Layer, overlapping: bool, options: Options
) -> Labels:
    legend, vectors = look.classes, options.vectors
    if isinstance(files, Path):
        polygons = read_polygons(files, base, vectors, [entry.name for entry in legend])
    else:
        polygons = joined({name: read_polygons(path, base, vectors) for name, path in files.items() if path})
        overlapping = True
    layer = replace(look, rendering=Rendering(polygons), classes=polygons.legend(legend), border=BORDER)
    if overlapping:
        names = [entry.name for entry in legend or layer.classes]
        classes = Classes(answers={name: polygon_answer(polygons, name, vectors.unlabelled) for name in names})
    else:
        outside = vectors.unlabelled or (options.classes[0].name if options.classes else None)
        classes = Classes(polygon_ids(polygons, legend, outside))
    return Labels(classes, (layer,))


def _check_sizes(paths: Iterable[Path], base: RasterFacts) -> None:
    for facts in map(raster_facts, paths):
        if facts.size != base.size:
            raise ConfigError(
                f"the labels {facts.place} are {facts.size.text} pixels and {base.place} is {base.size.text}; they "
                "must be the same"
            )
