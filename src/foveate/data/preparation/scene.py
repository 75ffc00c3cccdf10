"""What the official downloads have in common: scenes, their masks, and the recipe that finds and reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from foveate.data.config import SplitConfig
from foveate.data.splits import Split
from foveate.types import LabelArray

IGNORED = 255


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
        ids: (H, W), class ids and `IGNORED`.
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
