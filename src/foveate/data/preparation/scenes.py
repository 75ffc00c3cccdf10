"""What the official downloads have in common: scenes, their masks, the recipe that finds them, and their splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from foveate.data.sections import Split, SplitConfig, assign_splits
from foveate.errors import DatasetError, reason_of
from foveate.texts import read_text
from foveate.types import LabelArray

NOT_LISTED = "in none of the split lists"


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


@dataclass(frozen=True, slots=True)
class Splitting:
    """Scenes whose split is known, and what was unusual about it.

    Attributes:
        scenes: each with a split or a reason to leave it out.
        unknown: entries of the lists that name no usable scene.
        drawn: how many splits were drawn by a hash of the name.
    """

    scenes: tuple[Scene, ...]
    unknown: tuple[str, ...] = ()
    drawn: int = 0


def split_scenes(scenes: Iterable[Scene], recipe: Recipe, lists: Mapping[Split, Path]) -> Splitting:
    """Give every scene its split.

    Args:
        scenes: of a download.
        recipe: of that download.
        lists: files that name the scenes of a split; with any of them, scenes in none are left out.

    Raises:
        DatasetError: when a list is missing, names a scene that another one names, or the lists name no scene at all.
    """
    scenes = tuple(scenes)
    return _listed(scenes, recipe, lists) if lists else _drawn(scenes, recipe)


def _drawn(scenes: tuple[Scene, ...], recipe: Recipe) -> Splitting:
    open_ones = [scene.name for scene in scenes if scene.split is None and not scene.left_out]
    splits = assign_splits(open_ones, recipe.draw)
    return Splitting(
        tuple(replace(scene, split=splits.get(scene.name, scene.split)) for scene in scenes), drawn=len(open_ones)
    )


def _listed(scenes: tuple[Scene, ...], recipe: Recipe, lists: Mapping[Split, Path]) -> Splitting:
    splits: dict[str, Split] = {}
    unknown = []
    usable = {scene.key for scene in scenes if not scene.left_out}
    for split, path in lists.items():
        for entry in _entries(path):
            key = recipe.key(Path(entry).name)
            if key not in usable:
                unknown.append(entry)
            elif splits.setdefault(key, split) != split:
                raise DatasetError(f"{entry} is in the lists of both {splits[key]} and {split}; keep one")
    if not splits:
        raise DatasetError(f"none of the names in {', '.join(map(str, lists.values()))} is an image of {recipe.name}")
    return Splitting(tuple(_placed(scene, splits) for scene in scenes), tuple(unknown))


def _placed(scene: Scene, splits: Mapping[str, Split]) -> Scene:
    if scene.left_out:
        return scene
    split = splits.get(scene.key)
    return replace(scene, split=split, left_out="" if split else NOT_LISTED)


def _entries(path: Path) -> list[str]:
    """Names in a list: one a line, or the images of JSON lines such as the original's `.odgt`."""
    if not path.is_file():
        raise DatasetError(f"no split list at {path}")
    lines = [line.strip() for line in read_text(path, DatasetError, "give the list as it was downloaded").splitlines()]
    return [_image_of(line, path) if line.startswith("{") else line for line in lines if line]


def _image_of(line: str, path: Path) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} holds a line that starts like JSON and is not: {reason_of(error)}") from None
    image = record.get("image") or record.get("fpath_img")
    if not isinstance(image, str):
        raise DatasetError(f"{path} holds a line without 'image' or 'fpath_img': {line}")
    return image
