"""DeepGlobe land cover: `*_sat.jpg` beside `*_mask.png`, in any folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from foveate.data.config import SplitConfig
from foveate.data.preparation.masks import Colour, mask_by_colour
from foveate.data.preparation.scene import IGNORED, Mask, Scene
from foveate.errors import DatasetError

_COLOURS: dict[str, Colour] = {
    "urban": (0, 255, 255),
    "agriculture": (255, 255, 0),
    "rangeland": (255, 0, 255),
    "forest": (0, 255, 0),
    "water": (0, 0, 255),
    "barren": (255, 255, 255),
}
_UNKNOWN: Colour = (0, 0, 0)
_IDS = {colour: index for index, colour in enumerate(_COLOURS.values())} | {_UNKNOWN: IGNORED}
_KEY = re.compile(r"(\d+)(_(sat|mask|label))?(\.\w+)?")
# The sizes of the field's split, 455 / 207 / 142, for those who do not have its lists.
_SIZES = {"train": 455, "val": 207, "test": 142}
_FRACTIONS = {f"{name}_fraction": _SIZES[name] / sum(_SIZES.values()) for name in ("val", "test")}


class DeepGlobe:
    """6 classes; unknown, and what is off the palette, is ignored.

    The official validation and test images have no public labels: the field splits the 803 training images.

    Source: Demir et al., "DeepGlobe 2018: A Challenge to Parse the Earth through Satellite Images", CVPRW 2018; the
        split is that of Chen et al., "Collaborative Global-Local Networks" (GLNet), CVPR 2019.
    """

    name = "deepglobe"
    classes = tuple(_COLOURS)
    draw = SplitConfig.model_validate(_FRACTIONS)
    crop = None

    def key(self, file_name: str) -> str | None:
        """The number of the image."""
        match = _KEY.fullmatch(file_name)
        return match[1] if match else None

    def scenes(self, source: Path) -> Iterator[Scene]:
        """Every `*_sat.jpg` below the folder.

        Raises:
            DatasetError: when there is none.
        """
        images = sorted(path for path in source.rglob("*_sat.jpg") if self.key(path.name))
        if not images:
            raise DatasetError(f"no *_sat.jpg below {source}; unpack the land cover track of DeepGlobe there")
        for image in images:
            labels = image.with_name(image.name.replace("_sat.jpg", "_mask.png"))
            key = self.key(image.name) or image.stem
            found = labels.is_file()
            yield Scene(key, image, (labels,)) if found else Scene(key, image, left_out="no *_mask.png beside it")

    def mask(self, scene: Scene) -> Mask:
        """Class ids of the colours of a `*_mask.png`."""
        return mask_by_colour(scene.labels[0], _IDS)
