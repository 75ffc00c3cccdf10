"""Labels as layers, of one class a pixel or of overlapping classes; and where predictions differ from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foveate.data.labels.raster import CLASS, class_files
from foveate.data.labels.shapes import VECTORS
from foveate.errors import ConfigError
from foveate.viewer.answers import (
    MISSED,
    MOST_IN_SET,
    RIGHT,
    TOO_MUCH,
    WRONG,
    Band,
    Errors,
    Nowhere,
    Sets,
    YesNo,
)  # fmt: skip
from foveate.viewer.inputs import RasterFacts, raster_facts
from foveate.viewer.layers import category, class_legend, shown_size
from foveate.viewer.polygons import BORDER, PolygonAnswer, PolygonIds, joined, read_polygons
from foveate.viewer.rendering import Ids, Rendering
from foveate.viewer.scene import ClassEntry, Layer, Options

_WRONG_COLOR, _TOO_MUCH_COLOR = "#e4004f", "#0072b2"
ERRORS = (ClassEntry(WRONG, "differs from the labels", _WRONG_COLOR), ClassEntry(RIGHT, "agrees", ""))
YES_NO_ERRORS = (
    ClassEntry(MISSED, "only in the labels", _WRONG_COLOR),
    ClassEntry(TOO_MUCH, "only in the prediction", _TOO_MUCH_COLOR),
    ClassEntry(RIGHT, "agrees", ""),
)
ALL, ANY = "all classes", "any class"


@dataclass(frozen=True, slots=True)
class Truth:
    """What labels say.

    Attributes:
        ids: class ids, of labels with one class a pixel.
        answers: yes or no by the name of the class, of overlapping classes.
        layers: that show them.
        notes: what was taken for granted.
    """

    ids: Rendering | None = None
    answers: Mapping[str, Rendering] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()


def overlapping_layers(layer: Layer, answers: Mapping[str, Rendering]) -> Iterator[Layer]:
    """Layers of overlapping classes, of which one is shown at a time: all classes, if they are few, and each alone.

    Args:
        layer: with their legend.
        answers: yes or no by the name of the class.
    """
    entries = [entry for entry in layer.classes if entry.name in answers]
    if 1 < len(entries) <= MOST_IN_SET and max(entry.code for entry in entries) < MOST_IN_SET:
        sets = Sets(tuple((entry.code, answers[entry.name]) for entry in entries))
        yield replace(layer, rendering=sets, option=ALL, sets=True)
    for entry in entries:
        yield replace(layer, rendering=YesNo(answers[entry.name], entry.code), option=entry.name)


def labels_of(
    path: Path, base: RasterFacts, legend: tuple[ClassEntry, ...] | None, overlapping: bool, options: Options
) -> Truth:
    """Read what labels say.

    Args:
        path: a mask, polygons, or a path with `{class}` for a file of each class.
        base: what they lie on.
        legend: the classes, where they are known.
        overlapping: whether a pixel may belong to several of them.
        options: what the values and the polygons mean.

    Raises:
        ConfigError: when they lie on another grid, or are no labels.
        DatasetError: when polygons cannot be read.
    """
    files = _files(path, legend)
    if path.suffix.lower() in VECTORS:
        return _of_polygons(files or path, base, legend or (), overlapping, options)
    if files:
        known = legend or tuple(ClassEntry(code, name, "") for code, name in enumerate(files))
        return _of_masks(files, base, _coloured(known), options)
    facts = raster_facts(path)
    if legend is not None and facts.bands == len(legend) > 1:
        _check_size(facts, base)
        meaning = _meaning(options)
        answers = {entry.name: Band(path, place, meaning) for place, entry in enumerate(legend)}
        look = Layer("labels", "Labels", Nowhere(), facts.size, classes=legend, opacity=0.55)
        return Truth(answers=answers, layers=tuple(overlapping_layers(look, answers)))
    ids = Ids(path, None if options.label_map is None else tuple(options.label_map.items()))
    return Truth(ids, layers=(_mask_layer(ids, facts, base, legend),))


def error_layers(found: Rendering | Mapping[str, Rendering], truth: Truth, base: RasterFacts) -> Iterator[Layer]:
    """Where a prediction differs from the labels; nothing where one has one class a pixel and the other any number.

    Args:
        found: class ids, or yes or no by the name of overlapping classes.
        truth: the labels.
        base: of the same size.
    """
    if not isinstance(found, Mapping):
        if truth.ids is not None:
            yield Layer("errors", "Errors", Errors(found, truth.ids), base.size, classes=ERRORS)
        return
    pairs = {name: (found[name], truth.answers[name]) for name in found if name in truth.answers}
    if 1 < len(pairs) <= MOST_IN_SET:
        mine, theirs = (Sets(tuple(enumerate(one))) for one in zip(*pairs.values(), strict=True))
        yield Layer("errors", "Errors", Errors(mine, theirs), base.size, classes=ERRORS, option=ANY)
    for name, pair in pairs.items():
        yield Layer("errors", "Errors", Errors(*pair, by_kind=True), base.size, classes=YES_NO_ERRORS, option=name)


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


def _coloured(legend: Sequence[ClassEntry]) -> tuple[ClassEntry, ...]:
    return tuple(replace(entry, color=entry.color or category(place)) for place, entry in enumerate(legend))


def _of_masks(
    files: Mapping[str, Path | None], base: RasterFacts, legend: tuple[ClassEntry, ...], options: Options
) -> Truth:
    for path in filter(None, files.values()):
        _check_size(raster_facts(path), base)
    meaning = _meaning(options)
    answers: dict[str, Rendering] = {
        name: Nowhere() if path is None else Band(path, 0, meaning) for name, path in files.items()
    }
    missing = [name for name, path in files.items() if path is None]
    notes = (f"There is no mask of {', '.join(missing)}: taken as not in the image.",) if missing else ()
    look = Layer("labels", "Labels", Nowhere(), base.size, classes=legend, opacity=0.55)
    return Truth(None, answers, tuple(overlapping_layers(look, answers)), notes)


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
    layer = Layer("labels", "Labels", polygons, base.size, classes=known, border=BORDER, opacity=0.55)
    if overlapping or not isinstance(files, Path):
        classes = legend or known
        answers = {entry.name: PolygonAnswer.of(polygons, entry.name, vectors.unlabelled) for entry in classes}
        return Truth(None, answers, (layer,))
    outside = vectors.unlabelled or (options.classes[0].name if options.classes else None)
    return Truth(PolygonIds(polygons, polygons.ids_by_code(legend, outside)), {}, (layer,))


def _meaning(options: Options) -> tuple[tuple[int, int], ...] | None:
    return None if options.label_map is None else tuple(options.label_map.items())


def _mask_layer(ids: Ids, facts: RasterFacts, base: RasterFacts, legend: tuple[ClassEntry, ...] | None) -> Layer:
    if facts.bands != 1 or facts.dtype.kind not in "bui":
        raise ConfigError(f"{facts.place} has {facts.bands} bands of {facts.dtype}; labels are one band of class ids")
    _check_size(facts, base)
    return Layer("labels", "Labels", ids, facts.size, classes=legend or class_legend(facts), opacity=0.55)


def _check_size(facts: RasterFacts, base: RasterFacts) -> None:
    if facts.size != base.size:
        raise ConfigError(
            f"the labels {facts.place} are {shown_size(facts.size)} pixels and {base.place} is "
            f"{shown_size(base.size)}; they must be the same"
        )
