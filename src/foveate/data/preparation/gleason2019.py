"""Gleason2019: tissue cores, each with maps of one to six experts in `Maps1_T` to `Maps6_T`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from foveate.data.config import SplitConfig
from foveate.data.preparation.fusion import Fusion, check_available, fuse
from foveate.data.preparation.masks import mask_by_value
from foveate.data.preparation.scene import IGNORED, Mask, Scene
from foveate.data.readers import open_image
from foveate.errors import ConfigError, DatasetError
from foveate.types import LabelArray

Scheme: TypeAlias = Literal["4", "3", "3-vs-rest", "4-vs-rest", "5-vs-rest", "benign-vs-rest"]

_GRADES = ("benign", "grade 3", "grade 4", "grade 5")
# Value in a map -> place in `_GRADES`: 0 is background, 6 is taken for benign as in the original.
_VALUES = {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 0}
# Class names, and the class of each grade, as in the original.
_SCHEMES: dict[Scheme, tuple[tuple[str, ...], tuple[int, int, int, int]]] = {
    "4": (_GRADES, (0, 1, 2, 3)),
    "3": (_GRADES[:3], (0, 1, 2, 0)),
    "3-vs-rest": (("rest", "grade 3"), (0, 1, 0, 0)),
    "4-vs-rest": (("rest", "grade 4"), (0, 0, 1, 0)),
    "5-vs-rest": (("rest", "grade 5"), (0, 0, 0, 1)),
    "benign-vs-rest": (("benign", "cancer"), (0, 1, 1, 1)),
}
_KEY = re.compile(r"slide\d+_core\d+")
_MAPS = re.compile(r"Maps\d+", re.IGNORECASE)
_OTHER_SIZE = "a map of another size than its image, left out"
_UNDECIDED = "experts disagree evenly, ignored"


@dataclass(frozen=True)
class Gleason2019:
    """Grades of prostate tissue, fused from the experts' maps.

    The maps are fused as four grades, then mapped: every scheme is a function of the four-class masks.

    Attributes:
        fusion: "majority" or "staple".
        scheme: "4" for benign and grades 3, 4 and 5; "3" without grade 5, which then counts as benign; "3-vs-rest",
            "4-vs-rest", "5-vs-rest" and "benign-vs-rest" for two classes.
        crop: side of the central square that is kept, pixels; the original keeps 4400. Smaller images stay whole.

    Raises:
        ConfigError: when the crop is not above zero, or STAPLE is asked for and its package is missing.

    Source: Nir et al., "Automatic grading of prostate cancer in digitized histopathology images", MedIA 2018; schemes
        and the share of validation images as in the public code of arXiv 2007.15124.
    """

    fusion: Fusion = "majority"
    scheme: Scheme = "4"
    crop: int | None = None

    name: ClassVar[str] = "gleason2019"
    draw: ClassVar[SplitConfig] = SplitConfig(val_fraction=30 / 268)

    def __post_init__(self) -> None:
        check_available(self.fusion)
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"--crop {self.crop}; give the side of the central square in pixels, such as 4400")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id, as the scheme says."""
        return _SCHEMES[self.scheme][0]

    def key(self, file_name: str) -> str | None:
        """Slide and core, such as "slide001_core003"."""
        match = _KEY.search(file_name)
        return match[0] if match else None

    def scenes(self, source: Path) -> Iterator[Scene]:
        """Every `slideNNN_coreNNN.jpg` below the folder.

        Raises:
            DatasetError: when there is no image, or no folder of maps.
        """
        maps = self._maps(source)
        images = sorted(path for path in source.rglob("slide*_core*.jpg") if _KEY.fullmatch(path.stem))
        if not images or not maps:
            raise DatasetError(
                f"{source} holds {len(images)} images slideNNN_coreNNN.jpg and maps of {len(maps)} of them; unpack the "
                f"training images and Maps1_T.zip to Maps6_T.zip there"
            )
        for image in images:
            found = tuple(maps.get(image.stem, ()))
            yield Scene(image.stem, image, found) if found else Scene(image.stem, image, left_out="no expert map")

    def _maps(self, source: Path) -> dict[str, list[Path]]:
        """Maps by core; only below folders called Maps..., as results of others may lie beside them."""
        found = defaultdict(list)
        for path in sorted(source.rglob("slide*_classimg_nonconvex.png")):
            key = self.key(path.name)
            if key and any(_MAPS.match(part) for part in path.relative_to(source).parts[:-1]):
                found[key].append(path)
        return dict(found)

    def mask(self, scene: Scene) -> Mask:
        """The experts' maps as one mask."""
        with open_image(scene.image) as image:
            shape = (image.size.height, image.size.width)
        maps = [mask_by_value(path, _VALUES) for path in scene.labels]
        fitting = [each for each in maps if each.ids.shape == shape]
        if not fitting:
            raise DatasetError(f"none of the {len(maps)} maps of {scene.image} has its {shape[0]} x {shape[1]} pixels")
        fused = fuse([each.ids for each in fitting], len(_GRADES), self.fusion)
        table = np.full(256, IGNORED, np.uint8)
        table[: len(_GRADES)] = _SCHEMES[self.scheme][1]
        return Mask(table[fused], _odd(maps, fitting, fused))


def _odd(maps: list[Mask], fitting: list[Mask], fused: LabelArray) -> Counter[str]:
    odd = Counter({f"maps of {len(fitting)} experts": 0})
    for each in fitting:
        odd.update(each.odd)
    if len(fitting) < len(maps):
        odd[_OTHER_SIZE] = 0
    labelled = np.any([each.ids != IGNORED for each in fitting], axis=0)
    undecided = int(np.count_nonzero(labelled & (fused == IGNORED)))
    if undecided:
        odd[_UNDECIDED] = undecided
    return odd
