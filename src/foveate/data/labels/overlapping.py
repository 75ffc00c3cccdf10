"""`OverlappingLabels`: sets of classes, from a mask for each class, or from one with a band for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.labels.place import placement_of
from foveate.data.labels.raster import RasterLabels
from foveate.data.labels.table import LabelTable
from foveate.data.readers.base import ImageReader
from foveate.errors import DatasetError
from foveate.membership import Membership, Overlapping
from foveate.types import BoolArray, IntArray, LabelArray, Raster

if TYPE_CHECKING:
    from foveate.data.config import DataConfig

CLASS = "{class}"


class YesNoTable(LabelTable):
    """The values of one band of a mask: 0 is no; 1 or 255 is yes, unless `data.label_map` says what values mean.

    Args:
        bands: of a mask with one for each class; 1 of a mask of one class.
        band: which of them.
        ignore_index, label_map, rounded: as of `LabelTable`; the map leads to 0, 1 or `ignore_index`.
    """

    def __init__(
        self,
        bands: int,
        band: int,
        ignore_index: int = 255,
        label_map: Mapping[int, int] | None = None,
        *,
        rounded: bool = False,
    ) -> None:
        super().__init__(2, ignore_index, label_map or {1: 1, 255: 1}, rounded=rounded)
        self._bands, self._band, self.guessed = bands, band, not label_map
        if self.guessed:
            self._named = np.empty(0, np.int64)  # what a mask calls no data is none

    def check(self, mask: ImageReader) -> tuple[str, ...]:
        """Refuse what has not one band for each class."""
        notes = super().check(mask)
        if self._bands > 1 and mask.bands != self._bands:
            raise DatasetError(
                f"the mask {mask.location} has {mask.bands} bands for {self._bands} overlapping classes. Give one band "
                f"for each class, in their order, or one file for each: masks/{CLASS}/a.png in a manifest, or folders "
                f"masks/CLASS/; for one class a pixel set data.overlapping=false"
            )
        return () if self._bands > 1 else notes

    def values(self, pixels: Raster, location: str) -> NDArray[Any]:
        """Those of the band."""
        pixels = pixels[self._band, None] if self._bands > 1 else pixels
        return super().values(pixels, location)

    def setting(self, value: Any, label: int) -> str:
        """The label map with a yes more."""
        return super().setting(value, 1)


class YesNoLabels(RasterLabels):
    """The mask of one class."""

    meaning: YesNoTable

    def _checked(
        self, values: NDArray[Any], ids: NDArray[np.int16], inside: BoolArray, counted: BoolArray
    ) -> LabelArray:
        yes = values[(ids == 1) & inside & counted]
        if self.meaning.guessed and (yes == 1).any() and (yes == 255).any():
            raise DatasetError(
                f"the mask {self.location} holds both 1 and 255; say what they mean with data.label_map: 0 is no, 1 is "
                f"yes, {self.membership.ignore_index} is not counted. For example data.label_map={{1: 1, 255: "
                f"{self.membership.ignore_index}}}"
            )
        return super()._checked(values, ids, inside, counted)


class OverlappingLabels:
    """One mask for each class on the grid of an image; see `LabelSource`.

    Args:
        parts: the mask of each class, with ids 0 for no and 1 for yes; None where nothing belongs to it.
        location: what messages call all of them.
        notes: what was taken for granted.
    """

    def __init__(self, parts: Sequence[RasterLabels | None], location: str, notes: Sequence[str] = ()) -> None:
        self.parts = [part for part in parts if part is not None]
        self._each, self.location, self.size = list(parts), location, self.parts[0].size
        self.membership: Membership = Overlapping()
        self.notes: tuple[str, ...] = (*notes, *dict.fromkeys(note for part in self.parts for note in part.notes))

    def ids(self, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        """Sets of bits; a pixel that one mask does not count is not counted at all."""
        label = np.zeros((len(rows), len(cols)), self.membership.dtype)
        ignored = np.zeros(label.shape, np.bool_)
        for number, part in enumerate(self._each):
            if part is not None:
                found = part.ids(rows, cols, counted)
                label |= (found == 1).astype(label.dtype) << number
                ignored |= found == part.membership.ignore_index
        label[ignored] = self.membership.ignore_index
        return label


def overlapping_source(
    place: Path, image: ImageReader, config: DataConfig, mask: Callable[[Path], ImageReader]
) -> OverlappingLabels:
    """The masks of overlapping classes; arguments and errors are those of `open_source`."""
    bands = 1 if CLASS in str(place) else len(config.classes)
    files = [place] * bands if bands > 1 else class_files(place, config.class_names)
    parts = [
        None if path is None else _part(path, image, (bands, number), config, mask) for number, path in enumerate(files)
    ]
    missing = [name for name, path in zip(config.class_names, files, strict=True) if path is None]
    notes = [f"there is no mask of {', '.join(missing)}: taken as not there"] if missing else []
    return OverlappingLabels(parts, str(place), notes)


def _part(
    path: Path, image: ImageReader, band: tuple[int, int], config: DataConfig, mask: Callable[[Path], ImageReader]
) -> RasterLabels:
    meaning = YesNoTable(*band, config.ignore_index, config.label_map, rounded=config.round_labels)
    placed = placement_of(image, mask(path))
    return YesNoLabels(lambda: mask(path), meaning, placed, size=image.size, use_nodata=config.use_nodata)


def class_files(place: Path, names: Sequence[str]) -> list[Path | None]:
    """The file of each class, None where there is none, from a path with `{class}` and perhaps one `*` in its name.

    Raises:
        DatasetError: when several files fit.
    """
    return [_class_file(Path(str(place).replace(CLASS, name))) for name in names]


def _class_file(path: Path) -> Path | None:
    found = sorted(path.parent.glob(path.name)) if "*" in path.name else [path] if path.exists() else []
    if len(found) > 1:
        raise DatasetError(f"{path} fits {len(found)} files, {found[0].name} and {found[1].name}; one mask is needed")
    return found[0] if found else None
