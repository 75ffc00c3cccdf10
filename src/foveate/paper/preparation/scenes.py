"""A scene of an official download: its mask of class ids, by value or by colour, and its files as they are written.

Files are held whole: the largest of the three data sets are 26 megapixels. Convert larger masks with `foveate convert`
and map their values with `data.label_map`.
"""

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from foveate.data import Split, SplitConfig, open_dataset, open_image
from foveate.data.labels.table import packed
from foveate.data.pyramids import convert
from foveate.errors import DatasetError, ImageReadError, UnsupportedImageError
from foveate.files import written
from foveate.geometry import IGNORE, ByteArray, IntArray, LabelArray, Raster, Size, Window

Colour: TypeAlias = tuple[int, int, int]
_HALF = 128
_NAMED_COLOURS = 5


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


class Recipe(ABC):
    """How one official download becomes scenes and masks; sent to other processes, so plain data.

    A dataclass's fields are its settings: a preparation is not continued with others.

    Attributes:
        name: of the data set, as on the command line.
        pattern: finds, as its first group, what the names of a scene's files share, also as other projects name them.
        crop: side of the central square of images and masks that is kept, pixels; None keeps all.
        draw: how splits are drawn where neither the download nor a list gives them.
    """

    name: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    crop: int | None = None
    draw: ClassVar[SplitConfig] = SplitConfig()

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by id."""

    def key(self, file_name: str) -> str | None:
        """The key in the name of a file of a scene; None when there is none."""
        found = self.pattern.search(file_name)
        return found[1] if found else None

    @abstractmethod
    def scenes(self, source: Path) -> Iterator[Scene]:
        """All scenes of a download, sorted; found lazily.

        Raises:
            DatasetError: when the folder is not laid out as the download.
        """

    @abstractmethod
    def mask(self, scene: Scene) -> Mask:
        """The labels of a scene that is not left out; its label files are read whole.

        Raises:
            ImageReadError, UnsupportedImageError: when a file is damaged, or cannot be opened.
            DatasetError: when a file does not hold labels of this data set.
        """


def mask_by_value(path: Path, ids: Mapping[int, int]) -> Mask:
    """A mask of one band through a table.

    Args:
        path: the file.
        ids: value in the file -> class id or `IGNORE`; other values are ignored, counted and named.

    Raises:
        ImageReadError, UnsupportedImageError: when the file is damaged, or cannot be opened.
        DatasetError: when the file is not one band of 8 bits.
    """
    values = _labels(path, bands=1)[0]
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
        ImageReadError, UnsupportedImageError: when the file is damaged, or cannot be opened.
        DatasetError: when the file is not three bands of 8 bits.
    """
    pixels = _labels(path, bands=3)
    corners = _corners(pixels)
    table = np.full(8, IGNORE, np.uint8)
    table[[_corner(colour) for colour in ids]] = list(ids.values())
    counts, known = count_values(corners), {_corner(colour) for colour in ids}
    odd = _changed(pixels)
    for corner in np.flatnonzero(counts):
        if corner not in known:
            odd[f"colour {_colour(int(corner))} is not in the palette, ignored"] = int(counts[corner])
    return Mask(table[corners], odd)


def count_values(values: ByteArray) -> IntArray:
    """(256,) how often each value of (H, W) occurs."""
    return np.array(Image.fromarray(values).histogram(), np.int64)


def _labels(path: Path, bands: int) -> ByteArray:
    with open_image(path) as reader:
        if reader.bands != bands or reader.dtype != np.uint8:
            raise DatasetError(
                f"{path} has {reader.bands} bands of {reader.dtype}; labels of this data set have {bands} of uint8"
            )
        return reader.read(Window.of(reader.size))


def _corners(pixels: ByteArray) -> ByteArray:
    """(3, H, W) to the number of the nearest corner of the colour cube, 4 red + 2 green + blue."""
    red, green, blue = (pixels >= _HALF).astype(np.uint8)
    corners: ByteArray = red << 2 | green << 1 | blue
    return corners


def _corner(colour: Colour) -> int:
    return int(_corners(np.array(colour, np.uint8)))


def _colour(corner: int) -> Colour:
    return 255 * (corner >> 2), 255 * (corner >> 1 & 1), 255 * (corner & 1)


def _changed(pixels: ByteArray) -> Counter[str]:
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What became of one scene.

    Attributes:
        name: of the scene.
        image, mask: files relative to the output folder, with forward slashes; empty when it failed.
        pixels: labelled pixels of each class.
        ignored: pixels without a class.
        odd: what was unusual, and how many pixels it concerns.
        failed: why it could not be prepared, empty when it was.
    """

    name: str
    image: str = ""
    mask: str = ""
    pixels: tuple[int, ...] = ()
    ignored: int = 0
    odd: dict[str, int] = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes scenes; sent to other processes.

    Attributes:
        recipe: of the data set.
        out: folder of the results.
        pyramid: write images and masks as tiled pyramids; else only masks, as PNG.
    """

    recipe: Recipe
    out: Path
    pyramid: bool = False

    def __call__(self, scene: Scene) -> Facts:
        """Write one scene; a file that cannot be read is told in the result, as the other scenes go on.

        Raises:
            OutputWriteError: when writing failed, for example on a full disk.
        """
        try:
            return self._prepared(scene)
        except (ImageReadError, UnsupportedImageError, DatasetError) as error:
            return Facts(scene.name, failed=str(error))

    def _prepared(self, scene: Scene) -> Facts:
        mask = self.recipe.mask(scene)
        size = Size(*mask.ids.shape)
        kept = self._kept(size)
        with open_image(scene.image) as image:
            if image.size != size:
                raise DatasetError(
                    f"{scene.image} is {image.size.height} x {image.size.width} pixels and its mask "
                    f"{size.height} x {size.width}"
                )
            odd = mask.odd | ({"image of one band, which training repeats": 0} if image.bands == 1 else {})
            pixels = None if self.recipe.crop is None else image.read(kept)
        ids = mask.ids[kept.top : kept.bottom, kept.left : kept.right]
        mask_path = self._written("masks", scene, ids[np.newaxis])
        image_path = self._written("images", scene, pixels)
        counts = count_values(ids).tolist()
        return Facts(
            scene.name,
            self._relative(image_path),
            self._relative(mask_path),
            tuple(counts[: len(self.recipe.classes)]),
            counts[IGNORE],
            dict(odd),
        )

    def _written(self, kind: str, scene: Scene, pixels: Raster | None) -> Path:
        """Pixels of a scene, without loss, as PNG or as a pyramid; its own image where None."""
        path = self.out / kind / f"{scene.name}{'.tif' if self.pyramid else '.png'}"
        if not self.pyramid:
            if pixels is None:
                return scene.image
            with written(path, overwrite=True) as partial:
                _write_png(partial, pixels)
            return path
        with tempfile.TemporaryDirectory(prefix="foveate-prepare-") as folder:
            source = scene.image
            if pixels is not None:
                source = Path(folder) / "plain.png"
                _write_png(source, pixels)
            convert(source, path, overwrite=True, labels=kind == "masks")
        return path

    def _kept(self, size: Size) -> Window:
        """The central part of a scene."""
        height, width = (min(self.recipe.crop or side, side) for side in (size.height, size.width))
        return Window((size.height - height) // 2, (size.width - width) // 2, height, width)

    def _relative(self, path: Path) -> str:
        # Not the resolved file: a data set may be links to files of other names.
        place = path.parent.resolve() / path.name
        return Path(os.path.relpath(place, self.out.resolve())).as_posix()


def _write_png(path: Path, pixels: Raster) -> None:
    count, height, width = pixels.shape
    profile: dict[str, Any] = {"driver": "PNG", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with open_dataset(path, "w", **profile) as file:
        file.write(pixels)
