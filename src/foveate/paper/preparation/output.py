"""What a preparation writes: masks and images of scenes, and a record by which an interrupted one goes on."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.pyramids import convert
from foveate.data.readers import open_image
from foveate.data.readers.gdal import open_dataset
from foveate.errors import (
    DatasetError,
    ImageReadError,
    OutputExistsError,
    OutputWriteError,
    UnsupportedImageError,
    reason_of,
)
from foveate.files import write_text, written
from foveate.geometry import Size, Window
from foveate.paper.preparation.masks import Mask, Recipe, Scene, count_values
from foveate.texts import read_text
from foveate.types import IGNORE, LabelArray, Raster

MANIFEST = "manifest.csv"
_RECORD = "preparation.jsonl"


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
            counts[IGNORE],
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


class Record:
    """The record of an output folder; its first line says what is prepared, and how.

    Args:
        out: the folder.
        settings: what the files depend on; plain values.
        overwrite: begin anew.

    Raises:
        OutputExistsError: when the folder holds a finished preparation, one with other settings, or other results, and
            `overwrite` is false.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self._out, self._path = out, out / _RECORD
        if overwrite:
            # Without the manifest an interrupted overwriting can be continued too.
            (out / MANIFEST).unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        else:
            self._refuse_others(settings)
        self.done = {facts.name: facts for facts in self._lines() if self._is_there(facts)}
        # Anew, as an interruption may have cut the last line.
        lines = [json.dumps(settings), *(json.dumps(asdict(facts)) for facts in self.done.values())]
        write_text(self._path, "\n".join(lines) + "\n", overwrite=True)

    def add(self, facts: Facts) -> None:
        """Remember a scene; on disk only when it did not fail, so that a failed one is tried again.

        Raises:
            OutputWriteError: for example on a full disk.
        """
        self.done[facts.name] = facts
        if not facts.failed:
            self._append(json.dumps(asdict(facts)) + "\n")

    def _append(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise OutputWriteError(f"could not write {self._path}: {error}; repeat the command to continue") from error

    def _refuse_others(self, settings: dict[str, Any]) -> None:
        advice = "choose another folder or pass --overwrite to start again"
        if (self._out / MANIFEST).exists():
            raise OutputExistsError(f"{self._out / MANIFEST} exists: this was prepared already; {advice}")
        if not self._path.exists():
            found = [name for name in ("images", "masks") if (self._out / name).exists()]
            if found:
                raise OutputExistsError(f"{self._out} holds {' and '.join(found)} of something else; {advice}")
            return
        before = self._settings()
        changed = [
            f"{key} was {before.get(key)!r}, is {value!r}"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if changed:
            raise OutputExistsError(f"{self._out} was begun with other settings ({'; '.join(changed)}); {advice}")

    def _settings(self) -> dict[str, Any]:
        first = self._text().partition("\n")[0]
        try:
            return dict(json.loads(first))
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputExistsError(
                f"{self._path} is damaged ({reason_of(error)}); start again with --overwrite"
            ) from None

    def _lines(self) -> Iterator[Facts]:
        if not self._path.exists():
            return
        for line in self._text().splitlines()[1:]:
            try:
                values = json.loads(line)
                yield Facts(**{**values, "pixels": tuple(values["pixels"])})
            except (ValueError, TypeError, KeyError, RecursionError):  # cut short by a kill, or damaged: made again
                continue

    def _text(self) -> str:
        return read_text(self._path, OutputExistsError, "start again with --overwrite", 1 << 30)

    def _is_there(self, facts: Facts) -> bool:
        return (self._out / facts.image).is_file() and (self._out / facts.mask).is_file()
