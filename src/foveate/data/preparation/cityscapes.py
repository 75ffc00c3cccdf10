"""Cityscapes: `leftImg8bit/` and `gtFine/` as they are unpacked from the official packages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from foveate.data.config import SplitConfig
from foveate.data.preparation.masks import mask_by_value
from foveate.data.preparation.scene import IGNORED, Mask, Scene
from foveate.data.splits import SPLITS, Split
from foveate.errors import DatasetError

# Official label ids of the 19 classes that are evaluated; the other ids up to 33 are void or too rare.
_LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
_IDS = dict.fromkeys(range(34), IGNORED) | {value: index for index, value in enumerate(_LABEL_IDS.values())}
_KEY = re.compile(r"[a-z-]+_\d{6}_\d{6}")


class Cityscapes:
    """19 classes by the official train ids; the rest is ignored.

    The splits are the official ones. Labels of the test split are not public: it is left out.

    Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
    """

    name = "cityscapes"
    classes = tuple(_LABEL_IDS)
    draw = SplitConfig()
    crop = None

    def key(self, file_name: str) -> str | None:
        """City, sequence and frame, such as "aachen_000000_000019"."""
        match = _KEY.search(file_name)
        return match[0] if match else None

    def scenes(self, source: Path) -> Iterator[Scene]:
        """The images of `leftImg8bit/train`, `val` and `test`.

        Raises:
            DatasetError: when there is no `leftImg8bit` or `gtFine`.
        """
        for folder in ("leftImg8bit", "gtFine"):
            if not (source / folder).is_dir():
                raise DatasetError(
                    f"no folder {source / folder}; unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip "
                    f"into {source}"
                )
        for split in SPLITS:
            for image in sorted((source / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
                yield self._scene(source, image, split)

    def _scene(self, source: Path, image: Path, split: Split) -> Scene:
        prefix = image.name.removesuffix("_leftImg8bit.png")
        labels = source / "gtFine" / split / image.parent.name / f"{prefix}_gtFine_labelIds.png"
        key = self.key(image.name) or image.stem
        if split == "test":
            return Scene(key, image, left_out="the labels of the test split are not public")
        if not labels.is_file():
            return Scene(key, image, left_out="no *_gtFine_labelIds.png")
        return Scene(key, image, (labels,), split)

    def mask(self, scene: Scene) -> Mask:
        """Train ids of a `*_labelIds.png`."""
        return mask_by_value(scene.labels[0], _IDS)
