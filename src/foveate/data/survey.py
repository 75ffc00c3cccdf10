"""`survey`: what a folder of images and labels holds, from a sample of their pixels."""

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.config import DataConfig
from foveate.data.images import open_stored
from foveate.data.labels.raster import CLASS
from foveate.data.manifest import data_files
from foveate.data.readers import ImageReader
from foveate.data.readers.base import BAND, Address, band_files, is_pattern
from foveate.data.survey_labels import ClassFacts, Counted, ImageFacts, class_folders
from foveate.errors import DatasetError, FoveateError
from foveate.geometry import Window

_IMAGES = ("images", "image", "imgs", "img")
_LABELS = ("masks", "labels", "annotations", "mask", "label", "gt")
_WINDOWS, _WINDOW = 12, 128  # of each image
_RARE = 0.002  # a value that fewer pixels have is noise


@dataclass(frozen=True)
class Survey:
    """What a folder holds."""

    folder: Path
    images: tuple[ImageFacts, ...]  # with labels, sorted by name
    kind: str  # of labels: "ids", "colours", "polygons", or of overlapping classes "bands" or "folders" of masks
    classes: dict[Any, ClassFacts]  # by value, packed colour, name or band, in ascending order
    low: float  # least and largest value of the images that was seen, NaN and infinity aside
    high: float
    mean: tuple[float, ...]  # of each band
    std: tuple[float, ...]
    problems: tuple[str, ...]  # what was not understood or is left out
    complete: bool  # whether every pixel of the labels was read
    band_files: tuple[str, ...] = ()  # names of the bands, where each lies in a file of its own
    overlap: float = 0.0  # share of the area of polygons that lies in polygons of several classes

    @property
    def bands(self) -> int:
        """Bands of the images; all have as many."""
        return self.images[0].bands


def survey(folder: Path, said: DataConfig) -> Survey:
    """Look at a folder that holds images/ and, of the same names, masks/ (or labels/, annotations/, ...).

    Args:
        folder: of the data set.
        said: how its files are read: plane, nodata and vectors; the rest of it is not looked at.
    """
    problems: list[str] = []
    images = _images(folder, problems, said)
    for what in ("bands", "dtype"):
        kinds = Counter(getattr(image, what) for image in images)
        if len(kinds) > 1:
            told = ", ".join(f"{kind} in {count} images" for kind, count in kinds.most_common())
            raise DatasetError(f"the images differ in {what}: {told}; convert some, so that all are alike")
    known = _known_values(images, said)
    problems += _unmarked(known, images[0].dtype, folder)
    counted = Counted(images, said)
    problems += counted.notes
    return Survey(
        folder, tuple(images), counted.kind, counted.classes, float(known.min()), float(known.max()),
        tuple(known.mean(axis=1).tolist()), tuple(known.std(axis=1).tolist()), tuple(problems), counted.complete,
        tuple(band_files(images[0].path)) if is_pattern(images[0].path) else (), counted.overlap,
    )  # fmt: skip


def _images(folder: Path, problems: list[str], said: DataConfig) -> list[ImageFacts]:
    """Images with labels, each opened once."""
    where = _subfolder(folder, _IMAGES, "images")
    labels = _label_files(_subfolder(folder, _LABELS, "labels"))
    found, bare = [], []
    for path in _with_bands(data_files(where), labels):
        name = Address.of(path).name
        mask = labels.pop(name, None)
        if mask is None:
            bare.append(name)
            continue
        try:
            with open_stored(path, said) as image:
                found.append(_facts(image, name, path, mask))
        except FoveateError as error:
            problems.append(f"left out because it cannot be read: {error}")
    if bare:
        problems.append(f"{len(bare)} images without labels are left out: {', '.join(bare[:5])}")
    if labels:
        problems.append(f"{len(labels)} files of labels without an image: {', '.join(list(labels)[:5])}")
    if not found:
        raise DatasetError(f"no image in {where} has labels of the same name; " + "; ".join(problems))
    return sorted(found)


def _with_bands(files: list[Path], labels: Iterable[str]) -> list[Path]:
    """Images; where those of every name among the labels differ in the same words, paths with `{band}` for these."""
    names, found = list(labels), dict[str, dict[str, Path]]()
    if any(Address.of(path).name in names for path in files):
        return files
    for name in names:
        around = re.compile(rf"{re.escape(name)}[_. -](\w+)|(\w+)[_. -]{re.escape(name)}")
        fits = ((around.fullmatch(path.stem), path) for path in files)
        found[name] = {match[1] or match[2]: path for match, path in fits if match}
    bands = {tuple(sorted(one)) for one in found.values()}
    if len(bands) != 1 or len(next(iter(bands))) < 2:
        return files
    first = next(iter(bands))[0]
    return [one[first].with_name(BAND.join(one[first].name.rsplit(first, 1))) for one in found.values()]


def _label_files(folder: Path) -> dict[str, Path]:
    """Labels by the names of their images; where there are folders of classes instead of files, with `{class}`."""
    files = data_files(folder, polygons=True)
    if not files:
        files = [folder / CLASS / path.name for one in class_folders(folder) for path in data_files(one)]
    return {Address.of(path).name: path for path in files}


def _subfolder(folder: Path, names: Iterable[str], what: str) -> Path:
    found = [folder / name for name in names if (folder / name).is_dir()]
    if not found:
        raise DatasetError(
            f"{folder} has no folder of {what}; put images into images/ and their labels, with the same names, into "
            "masks/"
        )
    return found[0]


def _facts(image: ImageReader, name: str, path: Path, labels: Path) -> ImageFacts:
    if image.palette:
        raise DatasetError(f"{path} holds indices into a colour table; convert it to colours first")
    resolution, place = image.resolution, image.georeference
    size = None if resolution is None else (resolution.row * resolution.col) ** 0.5
    crs = place.crs if place is not None and place.crs else None
    return ImageFacts(name, path, labels, image.size, image.bands, image.dtype.name, size, crs)


def _known_values(images: list[ImageFacts], said: DataConfig) -> NDArray[np.float64]:
    """Values (bands, n) of windows spread over the images, of the pixels that hold data in all bands."""
    rng, parts = random.Random(0), []
    for facts in images[:: max(1, len(images) // 24)]:
        with open_stored(facts.path, said) as image:
            side = min(_WINDOW, facts.sides[0])
            for _ in range(_WINDOWS):
                corner = rng.randint(0, image.size.height - side), rng.randint(0, image.size.width - side)
                pixels, known = image.read_known(Window(*corner, side, side))
                there = np.isfinite(pixels).all(axis=0) if known is None else known.all(axis=0)
                parts.append(pixels[:, there].astype(np.float64))
    found = np.concatenate(parts, axis=1)
    if not found.size:
        raise DatasetError("the images have no finite value, or no pixel that holds data in all bands")
    return found


def _unmarked(values: NDArray[np.float64], dtype: str, folder: Path) -> list[str]:
    """What is said of a value that stands alone at an end of the range, as one that means no data does."""
    for value in (values.min(), values.max()) if dtype != "uint8" else ():
        rest = values[values != value]
        share = 1 - rest.size / values.size
        if rest.size and share > _RARE and np.abs(rest - value).min() > np.ptp(rest):
            return [
                f"{share:.1%} of the values are {value:g}, far from all others ({rest.min():g} to {rest.max():g}). If "
                f"that means no data, run: foveate init {folder} data.nodata={value:g} --overwrite"
            ]
    return []
