"""One scene written: its mask, and with pyramids its image, as what a manifest names."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.convert import convert
from foveate.data.preparation.masks import count_values
from foveate.data.preparation.scene import IGNORED, Mask, Recipe, Scene
from foveate.data.readers import open_image
from foveate.data.readers.gdal import open_dataset
from foveate.errors import DatasetError, ImageReadError, UnsupportedImageError
from foveate.files import written
from foveate.geometry import Size, Window
from foveate.types import LabelArray, Raster


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
            mask = self.recipe.mask(scene)
            odd = mask.odd | _image_oddities(scene, mask)
            kept = self._kept(Size(*mask.ids.shape))
            ids = mask.ids[kept.top : kept.bottom, kept.left : kept.right]
            mask_path = self._write_mask(scene, ids)
            image_path = self._write_image(scene, kept)
        except (ImageReadError, UnsupportedImageError, DatasetError) as error:
            return Facts(scene.name, failed=str(error))
        counts = count_values(ids).tolist()
        return Facts(
            scene.name,
            self._relative(image_path),
            self._relative(mask_path),
            tuple(counts[: len(self.recipe.classes)]),
            counts[IGNORED],
            dict(odd),
        )

    def _write_mask(self, scene: Scene, ids: LabelArray) -> Path:
        path = self.out / "masks" / f"{scene.name}{'.tif' if self.pyramid else '.png'}"
        if not self.pyramid:
            with written(path, overwrite=True) as partial:
                _write_png(partial, ids[np.newaxis])
            return path
        with tempfile.TemporaryDirectory(prefix="foveate-mask-") as folder:
            plain = Path(folder) / "mask.png"
            _write_png(plain, ids[np.newaxis])
            convert(plain, path, overwrite=True, labels=True)
        return path

    def _write_image(self, scene: Scene, kept: Window) -> Path:
        whole = self.recipe.crop is None
        if not self.pyramid and whole:
            return scene.image
        path = self.out / "images" / f"{scene.name}{'.tif' if self.pyramid else '.png'}"
        if not self.pyramid:
            with written(path, overwrite=True) as partial:
                _write_cropped(scene.image, kept, partial)
            return path
        with tempfile.TemporaryDirectory(prefix="foveate-image-") as folder:
            source = scene.image if whole else _write_cropped(scene.image, kept, Path(folder) / "image.png")
            convert(source, path, overwrite=True)
        return path

    def _kept(self, size: Size) -> Window:
        """The central part of a scene."""
        height, width = (min(self.recipe.crop or side, side) for side in (size.height, size.width))
        return Window((size.height - height) // 2, (size.width - width) // 2, height, width)

    def _relative(self, path: Path) -> str:
        # Not the resolved file: a data set may be links to files of other names.
        place = path.parent.resolve() / path.name
        return Path(os.path.relpath(place, self.out.resolve())).as_posix()


def _write_cropped(image: Path, kept: Window, path: Path) -> Path:
    """A part of an image, without loss."""
    with open_image(image) as reader:
        _write_png(path, reader.read(kept))
    return path


def _write_png(path: Path, pixels: Raster) -> None:
    count, height, width = pixels.shape
    profile: dict[str, Any] = {"driver": "PNG", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with open_dataset(path, "w", **profile) as file:
        file.write(pixels)


def _image_oddities(scene: Scene, mask: Mask) -> dict[str, int]:
    """Read from the image's header only; its pixels are not needed here."""
    height, width = mask.ids.shape
    with open_image(scene.image) as image:
        if (image.size.height, image.size.width) != (height, width):
            raise DatasetError(
                f"{scene.image} is {image.size.height} x {image.size.width} pixels and its mask {height} x {width}"
            )
        return {"image of one band, which training repeats": 0} if image.bands == 1 else {}
