"""Which files belong together: an image, its labels, and the results of predictions; and what each says of itself."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data import VECTORS, Address, Georeference, Resolution, open_dataset, open_image
from foveate.errors import ConfigError, ImageReadError, UnsupportedImageError, translated
from foveate.geometry import Size, ceil_div
from foveate.texts import read_json, read_tree

Colour = tuple[int, int, int]
_CLASS_TAG = "class_"


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """What is known about a raster before it is read."""

    path: Path  # the file, or the URL as a path
    size: Size  # from here to band_names: as of its reader
    bands: int
    dtype: np.dtype[Any]
    georeference: Georeference | None
    resolution: Resolution | None
    band_names: tuple[str, ...]
    stored_levels: int  # number of stored levels; 0 when the file can only be decoded whole
    descriptions: tuple[str | None, ...] = ()  # what each band is, as far as the file says
    palette: dict[int, Colour] = field(default_factory=dict)  # colour by value, for files with a colour table
    tags: dict[str, str] = field(default_factory=dict)  # metadata of the file
    unknown: float | None = None  # value that means that nothing is known
    gain: float = 1  # value = gain * stored + offset
    offset: float = 0

    @property
    def place(self) -> str:
        """Where it is, for people: of a URL without what may be secret."""
        return str(Address.of(self.path))

    @property
    def name(self) -> str:
        """The last part of its place."""
        return Address.of(self.path).path.name

    @property
    def class_names(self) -> dict[int, str]:
        """Names by class id, from the tags that `foveate predict` writes."""
        pairs = ((key.removeprefix(_CLASS_TAG), name) for key, name in self.tags.items() if key.startswith(_CLASS_TAG))
        return {int(key): name for key, name in pairs if key.isdecimal() and len(key) <= 3}

    @property
    def has_classes(self) -> bool:
        """Whether the values are class ids, or bands of overlapping classes, as far as the file says."""
        ids = self.bands == 1 and self.dtype.kind in "bui" and bool(self.palette or self.class_names)
        return ids or self.overlapping

    @property
    def overlapping(self) -> bool:
        """Whether it is a class map with a band for each of several overlapping classes."""
        return self.tags.get("overlapping") == "true"


def raster_facts(path: Path) -> RasterFacts:
    """Read the header of a raster."""
    with open_image(path) as reader:
        return RasterFacts(
            path=path,
            size=reader.size,
            bands=reader.bands,
            dtype=reader.dtype,
            georeference=reader.georeference,
            resolution=reader.resolution,
            band_names=reader.band_names,
            stored_levels=len(reader.levels) if reader.random_access else 0,
            **_more_facts(path),
        )


def pixel_of(facts: RasterFacts, base: RasterFacts) -> float:
    """Side of a pixel of a raster in base pixels: as its tag says, else the one that makes it cover the base grid."""
    tagged = facts.tags.get("cell", "")
    for side in (int(tagged) if tagged.isdecimal() else 0, round(base.size.width / facts.size.width)):
        if side and facts.size == Size(ceil_div(base.size.height, side), ceil_div(base.size.width, side)):
            return side
    across, down = base.size.width / facts.size.width, base.size.height / facts.size.height
    if abs(across - down) > max(across / facts.size.width, down / facts.size.height):
        raise ConfigError(
            f"{facts.place} is {facts.size.text} pixels and {base.place} is {base.size.text}: they do not show the "
            "same place"
        )
    return across


def _more_facts(path: Path) -> dict[str, Any]:
    """What the reader contract does not hold; nothing for files of which neither GDAL nor OME-Zarr says it."""
    if path.is_dir():
        return _zarr_facts(path)
    try:
        dataset = open_dataset(path)
    except UnsupportedImageError:
        return {}
    with dataset:
        return {
            "descriptions": dataset.descriptions,
            "palette": _palette(dataset),
            "tags": dataset.tags(),
            "unknown": dataset.nodata,
            "gain": dataset.scales[0],
            "offset": dataset.offsets[0],
        }


def _zarr_facts(path: Path) -> dict[str, Any]:
    """Names and colours of OME-Zarr labels, under "image-label" of version 0.4, or within "ome" of 0.5."""
    for name in (".zattrs", "zarr.json"):
        if not (path / name).is_file():
            continue
        tree = read_tree(path / name, UnsupportedImageError, "open another file")
        with translated(UnsupportedImageError, f"{path / name} is damaged"):
            tree = tree.get("attributes", tree)
            label = tree.get("ome", tree).get("image-label", {})
            colours = {int(item["label-value"]): tuple(item["rgba"][:3]) for item in label.get("colors", [])}
            names = {f"{_CLASS_TAG}{item['label-value']}": str(item["name"]) for item in label.get("properties", [])}
        return {"palette": colours, "tags": names}
    return {}


def _palette(dataset: Any) -> dict[int, Colour]:
    """The colour table; GDAL fills it up with black to 256, which is left out."""
    try:
        table = dataset.colormap(1)
    except ValueError:  # there is none
        return {}
    used = [value for value, colour in table.items() if tuple(colour[:3]) != (0, 0, 0)]
    return {value: tuple(table[value][:3]) for value in range(max(used, default=-1) + 1) if value in table}


CLASSES = (".classes.tif", ".classes.ome.zarr")
# Rasters of numbers beside the class map, by the middle part of their names.
VALUE_KINDS = ("probabilities", "fov", "confidence", "entropy", "loss", "iou")
PASSES, POLYGONS = ".passes.tif", ".polygons.geojson"
_LABELS = (".labels.tif", ".labels.png")
_SUFFIXES = (*CLASSES, ".preview.png", ".json", PASSES, POLYGONS, *(f".{kind}.tif" for kind in VALUE_KINDS))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted on one image."""

    name: str  # shown to people; unique among the predictions of a view
    classes: Path | None  # class map
    values: dict[str, Path] = field(default_factory=dict)  # rasters of numbers by kind, in the order of `VALUE_KINDS`
    passes: Path | None = None  # map of the passes
    polygons: Path | None = None  # a file of them
    labels: Path | None = None  # a mask that lies beside them
    summary: dict[str, Any] = field(default_factory=dict)  # what the JSON file beside them holds


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to show: at least an image or a prediction."""

    image: Path | None  # the image, where it was given or found
    labels: Path | None  # a mask of it
    predictions: tuple[Prediction, ...]  # on it


def find_inputs(paths: Sequence[Path], labels: Path | None = None, name: str | None = None) -> Inputs:
    """Sort what was given into one image and its predictions, and find what lies beside them.

    Args:
        paths: at most one image, also a URL; folders of predictions, one of their files, class maps, or polygons.
        labels: a mask of the image, or polygons; else a mask called STEM.labels.tif or .png beside a prediction.
        name: stem of the image, where a folder holds predictions of several.
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
        stem = _stem_in(path, name)
        return None if stem is None else _in_folder(path, stem)
    if location.is_local and not path.exists():
        raise ImageReadError(f"nothing at {path}; give an image, a class map or a folder of predictions")
    for suffix in _SUFFIXES:
        stem = path.name.removesuffix(suffix)
        if stem != path.name and _there(path.parent, stem, CLASSES):
            return _in_folder(path.parent, stem)
    if path.suffix.lower() in VECTORS:
        return Prediction(location.path.stem, None, polygons=path)
    return Prediction(location.path.stem, path) if raster_facts(path).has_classes else None


def _stem_in(folder: Path, name: str | None) -> str | None:
    """The stem of a prediction in a folder; None of a folder that is an image, as DICOM slides are."""
    stems = sorted({file.name.removesuffix(end) for end in CLASSES for file in folder.glob("*" + end)})
    if not stems:
        with suppress(UnsupportedImageError), open_image(folder):
            return None
        raise ConfigError(
            f"{folder} holds no prediction: nothing there is called STEM{' or STEM'.join(CLASSES)}; nor is it an image"
        )
    if name is None and len(stems) > 1:
        shown = ", ".join(stems[:10]) + (", ..." if len(stems) > 10 else "")
        raise ConfigError(f"{folder} holds predictions of several images; choose with --name: {shown}")
    if name is not None and name not in stems:
        raise ConfigError(f"{folder} holds no prediction of {name!r}; it has {', '.join(stems[:10])}")
    return name or stems[0]


def _there(folder: Path, stem: str, ends: Sequence[str]) -> Path | None:
    return next((folder / (stem + end) for end in ends if (folder / (stem + end)).exists()), None)


def _in_folder(folder: Path, stem: str) -> Prediction:
    beside = {kind: _there(folder, stem, [f".{kind}.tif"]) for kind in VALUE_KINDS}
    return Prediction(
        name=stem,
        classes=_there(folder, stem, CLASSES),
        values={kind: file for kind, file in beside.items() if file},
        passes=_there(folder, stem, [PASSES]),
        polygons=_there(folder, stem, [POLYGONS]),
        labels=_there(folder, stem, _LABELS),
        summary=_summary(folder / f"{stem}.json"),
    )


def _summary(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    tree = read_json(path, ConfigError, "it is not the summary of a prediction; move it elsewhere")
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
