"""Which files belong together: an image, its labels, and the results of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foveate.data.labels.shapes import VECTORS
from foveate.data.readers.base import Address
from foveate.errors import ConfigError, ImageReadError
from foveate.texts import read_json
from foveate.viewer.facts import raster_facts

CLASSES = (".classes.tif", ".classes.ome.zarr")
# Rasters of numbers beside the class map, by the middle part of their names.
VALUE_KINDS = ("probabilities", "fov", "confidence", "entropy", "loss", "iou")
PASSES, POLYGONS = ".passes.tif", ".polygons.geojson"
_LABELS = (".labels.tif", ".labels.png")
_SUFFIXES = (*CLASSES, ".preview.png", ".json", PASSES, POLYGONS, *(f".{kind}.tif" for kind in VALUE_KINDS))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted on one image.

    Attributes:
        name: shown to people; unique among the predictions of a view.
        classes: class map.
        values: rasters of numbers by kind, in the order of `VALUE_KINDS`.
        passes: map of the passes.
        polygons: a file of them.
        labels: a mask that lies beside them.
        summary: what the JSON file beside them holds.
    """

    name: str
    classes: Path | None
    values: dict[str, Path] = field(default_factory=dict)
    passes: Path | None = None
    polygons: Path | None = None
    labels: Path | None = None
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to show: at least an image or a prediction.

    Attributes:
        image: the image, where it was given or found.
        labels: a mask of it.
        predictions: on it.
    """

    image: Path | None
    labels: Path | None
    predictions: tuple[Prediction, ...]


def find_inputs(paths: Sequence[Path], labels: Path | None = None, name: str | None = None) -> Inputs:
    """Sort what was given into one image and its predictions, and find what lies beside them.

    Args:
        paths: at most one image, also a URL; folders of predictions, one of their files, class maps, or polygons.
        labels: a mask of the image, or polygons; else a mask called STEM.labels.tif or .png beside a prediction.
        name: stem of the image, where a folder holds predictions of several.

    Raises:
        ConfigError: when several images are given, or it is not clear which prediction is meant.
        ImageReadError: when a file is missing.
        UnsupportedImageError: when no reader can open it.
    """
    images: list[Path] = []
    predictions: list[Prediction] = []
    for path in paths:
        found = _prediction(path, name)
        if found is None:
            images.append(path)
        else:
            predictions.append(found)
    if len(images) > 1:
        given = " and ".join(str(Address.of(image)) for image in images)
        raise ConfigError(f"{given} are all images; give one image, and predictions on it to compare")
    image = images[0] if images else _image_of(predictions)
    beside = next((item.labels for item in predictions if item.labels), None)
    return Inputs(image, labels or beside, tuple(_with_unique_names(predictions)))


def _prediction(path: Path, name: str | None) -> Prediction | None:
    """The prediction that a path means, None when it is an image."""
    location = Address.of(path)
    if path.is_dir() and path.suffix != ".zarr":
        return _in_folder(path, _stem_in(path, name))
    if location.is_local and not path.exists():
        raise ImageReadError(f"nothing at {path}; give an image, a class map or a folder of predictions")
    for suffix in _SUFFIXES:
        stem = path.name.removesuffix(suffix)
        if stem != path.name and _class_map(path.parent, stem):
            return _in_folder(path.parent, stem)
    if path.suffix.lower() in VECTORS:
        return Prediction(location.path.stem, None, polygons=path)
    return Prediction(location.path.stem, path) if raster_facts(path).has_classes else None


def _stem_in(folder: Path, name: str | None) -> str:
    stems = sorted({file.name.removesuffix(end) for end in CLASSES for file in folder.glob("*" + end)})
    if not stems:
        raise ConfigError(f"{folder} holds no prediction: nothing there is called STEM{' or STEM'.join(CLASSES)}")
    if name is None and len(stems) > 1:
        shown = ", ".join(stems[:10]) + (", ..." if len(stems) > 10 else "")
        raise ConfigError(f"{folder} holds predictions of several images; choose with --name: {shown}")
    if name is not None and name not in stems:
        raise ConfigError(f"{folder} holds no prediction of {name!r}; it has {', '.join(stems[:10])}")
    return name or stems[0]


def _class_map(folder: Path, stem: str) -> Path | None:
    return next((folder / (stem + end) for end in CLASSES if (folder / (stem + end)).exists()), None)


def _in_folder(folder: Path, stem: str) -> Prediction:
    beside = {kind: folder / f"{stem}.{kind}.tif" for kind in VALUE_KINDS}
    return Prediction(
        name=stem,
        classes=_class_map(folder, stem),
        values={kind: file for kind, file in beside.items() if file.exists()},
        passes=_existing(folder / (stem + PASSES)),
        polygons=_existing(folder / (stem + POLYGONS)),
        labels=next((folder / (stem + end) for end in _LABELS if (folder / (stem + end)).exists()), None),
        summary=_summary(folder / f"{stem}.json"),
    )


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _summary(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    tree = read_json(path, ConfigError, "it is no summary of a prediction: move it elsewhere")
    return tree if isinstance(tree, dict) else {}


def _image_of(predictions: Sequence[Prediction]) -> Path | None:
    """The image that a summary names, where it says enough to find it."""
    for prediction in predictions:
        folder = prediction.classes.parent if prediction.classes else Path()
        for key in ("image_path", "path", "image"):
            named = prediction.summary.get(key)
            for candidate in (Path(named), folder / named) if isinstance(named, str) and named else ():
                if candidate.is_file():
                    return candidate
    return None


def _with_unique_names(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions of one stem are told apart by their folders."""
    names = [prediction.name for prediction in predictions]
    result: list[Prediction] = []
    for number, item in enumerate(predictions, start=1):
        name = item.name
        if names.count(name) > 1 and item.classes is not None:
            name = f"{item.classes.resolve().parent.name}/{name}"
        if name in {other.name for other in result}:
            name = f"{name} ({number})"
        result.append(replace(item, name=name))
    return result
