"""What official downloads have in common: scenes, and masks of class ids, by value, by colour or from several experts.

Files are held whole: the largest of the three data sets are 26 megapixels. Convert larger masks with `foveate convert`
and map their values with `data.label_map`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foveate.data.labels.table import packed
from foveate.data.readers import open_image
from foveate.data.sections import Split, SplitConfig
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import Window
from foveate.types import IGNORE, LabelArray

Colour: TypeAlias = tuple[int, int, int]
_HALF = 128
_NAMED_COLOURS = 5
_PART = 1 << 20
Fusion: TypeAlias = Literal["majority", "staple"]
# It settles within ten or so where experts mostly agree; where they do not at all it would go on for minutes.
_STAPLE_ITERATIONS = 50


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a download.

    Attributes:
        key: what the names of its files share; split lists name scenes by it.
        image: its file; the stem is its name in the manifest.
        labels: files its mask is made of.
        split: as the download says, None when it does not.
        left_out: why it is not used, empty when it is.
    """

    key: str
    image: Path
    labels: tuple[Path, ...] = ()
    split: Split | None = None
    left_out: str = ""

    @property
    def name(self) -> str:
        """The stem of the image."""
        return self.image.stem


class Mask(NamedTuple):
    """Labels of a scene.

    Attributes:
        ids: (H, W), class ids and `IGNORE`.
        odd: what was unusual, and how many pixels it concerns; 0 where it is not about pixels.
    """

    ids: LabelArray
    odd: Counter[str]


class Recipe(Protocol):
    """How one official download becomes scenes and masks; sent to other processes, so plain data.

    A dataclass's fields are its settings: a preparation is not continued with others.
    """

    @property
    def name(self) -> str:
        """Of the data set, as on the command line."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, by id."""
        ...

    @property
    def crop(self) -> int | None:
        """Side of the central square of images and masks that is kept, pixels; None keeps all."""
        ...

    @property
    def draw(self) -> SplitConfig:
        """How splits are drawn where neither the download nor a list gives them."""
        ...

    def key(self, file_name: str) -> str | None:
        """The key in the name of any file of a scene, also as other projects name it; None when there is none."""
        ...

    def scenes(self, source: Path) -> Iterator[Scene]:
        """All scenes of a download, sorted; found lazily.

        Raises:
            DatasetError: when the folder is not laid out as the download.
        """
        ...

    def mask(self, scene: Scene) -> Mask:
        """The labels of a scene that is not left out; its label files are read whole.

        Raises:
            ImageReadError: when a file is damaged.
            UnsupportedImageError: when a file cannot be opened.
            DatasetError: when a file does not hold labels of this data set.
        """
        ...


def mask_by_value(path: Path, ids: Mapping[int, int]) -> Mask:
    """A mask of one band through a table.

    Args:
        path: the file.
        ids: value in the file -> class id or `IGNORE`; other values are ignored, counted and named.

    Raises:
        ImageReadError: when the file is damaged.
        UnsupportedImageError: when the file cannot be opened.
        DatasetError: when the file is not one band of 8 bits.
    """
    values = _read(path, bands=1)[0]
    table = np.full(256, IGNORE, np.uint8)
    table[list(ids)] = list(ids.values())
    counts = count_values(values)
    strange = [int(value) for value in np.flatnonzero(counts) if value not in ids]
    return Mask(
        table[values], Counter({f"value {value} is not a label; ignored": int(counts[value]) for value in strange})
    )


def mask_by_colour(path: Path, ids: Mapping[Colour, int]) -> Mask:
    """A mask of colours whose channels are 0 or 255.

    Channels are cut at 128, as the authors of DeepGlobe advise for masks that were compressed with loss; what that
    changes is counted and named, and so is what is no colour of the palette even then, which is ignored.

    Args:
        path: the file.
        ids: colour of 0 and 255 -> class id or `IGNORE`.

    Raises:
        ImageReadError: when the file is damaged.
        UnsupportedImageError: when the file cannot be opened.
        DatasetError: when the file is not three bands of 8 bits.
    """
    pixels = _read(path, bands=3)
    corners = _corners(pixels)
    table = np.full(8, IGNORE, np.uint8)
    table[[_corner(colour) for colour in ids]] = list(ids.values())
    counts, known = count_values(corners), {_corner(colour) for colour in ids}
    odd = _changed(pixels)
    for corner in np.flatnonzero(counts):
        if corner not in known:
            odd[f"colour {_colour(int(corner))} is not in the palette, ignored"] = int(counts[corner])
    return Mask(table[corners], odd)


def count_values(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) how often each value occurs."""
    # In parts: bincount widens its input eight times.
    counts = np.zeros(256, np.int64)
    for part in np.array_split(values.ravel(), 1 + values.size // _PART):
        counts += np.bincount(part, minlength=256)
    return counts


def _read(path: Path, bands: int) -> NDArray[np.uint8]:
    with open_image(path) as reader:
        if reader.bands != bands or reader.dtype != np.uint8:
            raise DatasetError(
                f"{path} has {reader.bands} bands of {reader.dtype}; labels of this data set have {bands} of uint8"
            )
        return reader.read(Window.of(reader.size))


def _corners(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W) to the number of the nearest corner of the colour cube, 4 red + 2 green + blue."""
    red, green, blue = (pixels >= _HALF).astype(np.uint8)
    corners: NDArray[np.uint8] = red << 2 | green << 1 | blue
    return corners


def _corner(colour: Colour) -> int:
    return int(_corners(np.array(colour, np.uint8)))


def _colour(corner: int) -> Colour:
    return 255 * (corner >> 2), 255 * (corner >> 1 & 1), 255 * (corner & 1)


def _changed(pixels: NDArray[np.uint8]) -> Counter[str]:
    """The commonest colours of other values than 0 and 255, and the rest of them."""
    changed = ((pixels != 0) & (pixels != 255)).any(axis=0)
    colours, counts = np.unique(packed(pixels[:, changed]), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    odd: Counter[str] = Counter()
    for index in order[:_NAMED_COLOURS]:
        red, green, blue = int(colours[index]).to_bytes(3)
        colour = red, green, blue
        odd[f"colour {colour} taken as {_colour(_corner(colour))}"] = int(counts[index])
    if len(order) > _NAMED_COLOURS:
        odd["other colours taken as the nearest of 0 and 255"] = int(counts[order[_NAMED_COLOURS:]].sum())
    return odd


def check_available(fusion: Fusion) -> None:
    """Refuse a way of fusing whose package is missing, before hours of work.

    Raises:
        ConfigError: naming the extra to install.
    """
    if fusion == "staple" and find_spec("SimpleITK") is None:
        raise ConfigError("fusion 'staple' needs SimpleITK: pip install 'foveate[prepare]', or use fusion 'majority'")


def fuse(maps: Sequence[LabelArray], classes: int, fusion: Fusion) -> LabelArray:
    """One (H, W) mask from at least one; one alone is returned as it is.

    Args:
        maps: masks of equal size, class ids and `IGNORE`, which is no vote.
        classes: number of classes.
        fusion: "majority" or "staple".
    """
    if len(maps) == 1:
        return maps[0]
    return majority(maps, classes) if fusion == "majority" else staple(maps, classes)


def majority(maps: Sequence[LabelArray], classes: int) -> LabelArray:
    """The class most experts chose; a tie is ignored, as a rule that breaks it would be an opinion of its own.

    Args:
        maps: (H, W) each, class ids and `IGNORE`, which is no vote.
        classes: number of classes.
    """
    result = np.full_like(maps[0], IGNORE)
    most = np.zeros(result.shape, np.uint8)
    for label in range(classes):
        votes = np.zeros_like(most)
        for each in maps:
            votes += each == label
        result[(votes == most) & (votes > 0)] = IGNORE
        result[votes > most] = label
        np.maximum(most, votes, out=most)
    return result


def staple(maps: Sequence[LabelArray], classes: int) -> LabelArray:
    """The likeliest class given how reliable each expert is, both estimated together; a tie is ignored.

    Args:
        maps: (H, W) each, class ids and `IGNORE`, which counts as one more class.
        classes: number of classes.

    Source: Rohlfing, Russakoff, Maurer, "Performance-based classifier combination in atlas-based image segmentation
        using expectation-maximization parameter estimation", IEEE TMI 2004; the implementation is ITK's.
    """
    import SimpleITK as sitk  # noqa: N813, PLC0415 - optional, and its usual name

    # ITK keeps a weight for every value up to the largest: 255 would make 256 of them.
    images = [sitk.GetImageFromArray(np.where(each == IGNORE, classes, each).astype(np.uint8)) for each in maps]
    fusing = sitk.MultiLabelSTAPLEImageFilter()
    fusing.SetMaximumNumberOfIterations(_STAPLE_ITERATIONS)
    fusing.SetLabelForUndecidedPixels(classes)
    fused: LabelArray = sitk.GetArrayFromImage(fusing.Execute(images))
    return np.where(fused >= classes, IGNORE, fused).astype(np.uint8)
