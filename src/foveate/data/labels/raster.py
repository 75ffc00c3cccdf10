"""Labels from masks: one mask for all classes or, for overlapping classes, a mask or a band for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from foveate.data.config import DataConfig
from foveate.data.labels.table import NO_CLASS, LabelTable, Meaning
from foveate.data.place import Placement, Positions, Stretched, placement_of
from foveate.data.readers.gdal import GdalReader, open_dataset
from foveate.data.readers.pyramid import STRIP_BYTES, ImageReader
from foveate.errors import DatasetError
from foveate.geometry import IGNORE, Array, BoolArray, IntArray, LabelArray, Raster, Size, Window
from foveate.membership import Exclusive, Membership, Overlapping

CLASS = "{class}"


class MaskFile(NamedTuple):
    """What only the file of a mask knows."""

    colours: IntArray | None = None  # (n, 3) red, green and blue of each value, of masks with a colour table; else None
    lossy: str = ""  # name of a format that changes values; empty for none

    @classmethod
    def of(cls, reader: ImageReader) -> Self:
        """Of files that GDAL reads; others have no colour table and change nothing."""
        if not isinstance(reader, GdalReader):
            return cls()
        with open_dataset(reader._location) as dataset:
            colours = dataset.colormap(1) if reader.palette else {}
            stored = dataset.tags(ns="IMAGE_STRUCTURE")
            compression = "JPEG" if dataset.driver == "JPEG" else stored.get("COMPRESSION", dataset.driver)
            lossy = "JPEG" in compression.split() or stored.get("COMPRESSION_REVERSIBILITY") == "LOSSY"
        table = np.array([colours[value][:3] for value in sorted(colours)], np.int64) if colours else None
        return cls(table, compression if lossy else "")


class RasterLabels:
    """A mask on the grid of its image; each pixel is that of the mask at its centre, never blended.

    Pixels that the mask says hold no data are not counted, unless the label map names their value.

    Args:
        mask: the open mask, or a function that gives it, for one that a cache may have closed meanwhile.
        meaning: what its values mean; also an attribute.
        place: where the image lies in it; over the same pixels when None.
        size: of the image; of the mask when None.
        use_nodata: whether a value that is a class counts as no data where the mask says so.

    Raises:
        DatasetError: when the mask cannot be one.
    """

    def __init__(
        self,
        mask: ImageReader | Callable[[], ImageReader],
        meaning: Meaning,
        place: Placement | None = None,
        *,
        size: Size | None = None,
        use_nodata: bool = True,
    ) -> None:
        reader = mask() if callable(mask) else mask
        self._get: Callable[[], ImageReader] = mask if callable(mask) else lambda: reader
        self.location, self.size = reader.location, size or reader.size
        self._place = place or Stretched(self.size, reader.size)
        self.meaning, self._use_nodata = meaning, use_nodata
        self.membership: Membership = Exclusive()
        file = MaskFile.of(reader)
        if file.lossy and not meaning.rounded:
            raise DatasetError(
                f"the mask {self.location} has lossy {file.lossy} compression; JPEG masks have noise at borders. Save "
                "masks as PNG or as lossless TIFF, or set data.round_labels=true to take the nearest allowed value of "
                "each pixel"
            )
        self.colours = file.colours
        self.notes = (*filter(None, [self._place.note]), *meaning.check(reader))

    @property
    def rasters(self) -> list[Self]:
        """The masks that the labels are read from."""
        return [self]

    def ids(self, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        """As `VectorLabels.ids`."""
        return self._ids(self._get(), rows, cols, counted)

    def _ids(self, mask: ImageReader, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        place = self._place.positions(rows, cols)
        result = np.full((len(rows), len(cols)), IGNORE, np.uint8)
        inside = _inside(place, mask.size)
        if not inside.any():
            return result
        window = _around(place, mask.size)
        if window.size.pixels * mask.bands * mask.dtype.itemsize > STRIP_BYTES and len(rows) > 1:
            half = len(rows) // 2
            for part in (slice(None, half), slice(half, None)):
                result[part] = self._ids(mask, rows[part], cols, counted[part])
            return result
        values, lacking = self._stored(mask, place, window)
        ids = self.meaning.ids(values)
        if mask.masked:
            # What counts even where the mask says that it is no data.
            kept = self.meaning.names(values) if self._use_nodata else ids != NO_CLASS
            ids = np.where(lacking & ~kept, IGNORE, ids)
        self.meaning.refuse(values, ids, inside & counted, self.location)
        # What stands where nothing counts need not be a class.
        return np.where(inside & (ids != NO_CLASS), ids, IGNORE).astype(np.uint8)

    def stored(self, rows: IntArray, cols: IntArray) -> tuple[Array, BoolArray]:
        """The values in the file at some crossings, (k,), and which of them it calls no data; none of those outside."""
        mask = self._get()
        place = self._place.positions(rows, cols)
        inside = _inside(place, mask.size)
        if not inside.any():
            return np.empty(0, mask.dtype), np.empty(0, np.bool_)
        values, lacking = self._stored(mask, place, _around(place, mask.size))
        return values[inside], lacking[inside]

    def _stored(self, mask: ImageReader, place: Positions, window: Window) -> tuple[Array, BoolArray]:
        """Values (n, m), and which of them the mask calls no data."""
        picked = _picked(place, window)
        pixels = mask.read(window)[(slice(None), *picked)]
        if self.meaning.in_colours and self.colours is not None:
            pixels = np.moveaxis(self.colours[pixels[0]], -1, 0)
        values = self.meaning.values(pixels, mask.location)
        return values, ~mask.valid(window)[picked] if mask.masked else np.zeros(values.shape, np.bool_)


def _inside(place: Positions, size: Size) -> BoolArray:
    rows, cols = place
    return ((rows >= 0) & (rows < size.height)) & ((cols >= 0) & (cols < size.width))


def _around(place: Positions, size: Size) -> Window:
    """The window of the mask that holds the positions inside it."""
    rows, cols = place
    rows, cols = rows[(rows >= 0) & (rows < size.height)], cols[(cols >= 0) & (cols < size.width)]
    top, left = int(rows.min()), int(cols.min())
    return Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)


def _picked(place: Positions, window: Window) -> tuple[Any, Any]:
    """The index of the positions in an array of the window; those outside it take its nearest pixel."""
    rows = (place.rows - window.top).clip(0, window.height - 1)
    cols = (place.cols - window.left).clip(0, window.width - 1)
    if rows.shape[1] == 1 and cols.shape[0] == 1 and _runs(rows) and _runs(cols):
        return slice(None), slice(None)  # a view instead of a copy: the usual case
    return rows, cols


def _runs(positions: IntArray) -> bool:
    """Whether these are all the numbers from the first to the last."""
    return bool((np.diff(positions.ravel()) == 1).all())


class YesNoTable(LabelTable):
    """The values of one band of a mask: 0 is no; 1 or 255 is yes, unless `data.label_map` says what values mean.

    The mask has `bands`, one for each class, or is that of one class.
    """

    def __init__(
        self, bands: int, band: int, label_map: Mapping[int, int] | None = None, *, rounded: bool = False
    ) -> None:
        super().__init__(2, label_map or {1: 1, 255: 1}, rounded=rounded)
        self._bands, self._band, self._guessed = bands, band, not label_map
        if self._guessed:
            self._named = np.empty(0, np.int64)  # what a mask calls no data is none

    def check(self, mask: ImageReader) -> tuple[str, ...]:
        """Refuse what has not one band for each class."""
        notes = super().check(mask)
        if self._bands > 1 and mask.bands != self._bands:
            raise DatasetError(
                f"the mask {mask.location} has {mask.bands} bands for {self._bands} overlapping classes. Give one band "
                f"for each class, in their order, or one file for each: masks/{CLASS}/a.png in a manifest, or folders "
                f"masks/CLASS/; for one class per pixel set data.overlapping=false"
            )
        return () if self._bands > 1 else notes

    def values(self, pixels: Raster, location: str) -> Array:
        """Those of the band."""
        pixels = pixels[self._band, None] if self._bands > 1 else pixels
        return super().values(pixels, location)

    def refuse(self, values: Array, ids: LabelArray, counted: BoolArray, location: str) -> None:
        """Refuse also 1 beside 255: what they mean then has to be said."""
        yes = values[(ids == 1) & counted]
        if self._guessed and (yes == 1).any() and (yes == 255).any():
            raise DatasetError(
                f"the mask {location} holds both 1 and 255; say what they mean with data.label_map: 0 is no, 1 is "
                f"yes, {IGNORE} is not counted. For example data.label_map={{1: 1, 255: {IGNORE}}}"
            )
        super().refuse(values, ids, counted, location)

    def setting(self, value: Any, label: int) -> str:
        """The label map with a yes more."""
        return super().setting(value, 1)


class OverlappingLabels:
    """The mask of each class on the grid of an image, with ids 0 for no and 1 for yes; None where it has none."""

    def __init__(self, parts: Sequence[RasterLabels | None], location: str, notes: Sequence[str] = ()) -> None:
        self.rasters = [part for part in parts if part is not None]
        self._each, self.location, self.size = list(parts), location, self.rasters[0].size
        self.membership: Membership = Overlapping()
        self.notes: tuple[str, ...] = (*notes, *dict.fromkeys(note for part in self.rasters for note in part.notes))

    def ids(self, rows: IntArray, cols: IntArray, counted: BoolArray) -> LabelArray:
        """Sets of bits; a pixel that one mask does not count is not counted at all."""
        label = np.zeros((len(rows), len(cols)), self.membership.dtype)
        ignored = np.zeros(label.shape, np.bool_)
        for number, part in enumerate(self._each):
            if part is not None:
                found = part.ids(rows, cols, counted)
                label |= (found == 1).astype(label.dtype) << number
                ignored |= found == IGNORE
        label[ignored] = self.membership.ignore_index
        return label


def overlapping_source(
    place: Path, image: ImageReader, config: DataConfig, mask: Callable[[Path], ImageReader]
) -> OverlappingLabels:
    """The masks of overlapping classes; arguments and errors are those of `open_source`."""
    bands = 1 if CLASS in str(place) else len(config.classes)
    files = [place] * bands if bands > 1 else class_files(place, config.class_names)
    tables = (YesNoTable(bands, n, config.mask_values, rounded=config.round_labels) for n in range(len(files)))
    parts = [
        None if path is None else mask_source(path, image, table, config, mask)
        for path, table in zip(files, tables, strict=True)
    ]
    missing = [name for name, path in zip(config.class_names, files, strict=True) if path is None]
    notes = [f"there is no mask of {', '.join(missing)}: taken as not there"] if missing else []
    return OverlappingLabels(parts, str(place), notes)


def mask_source(
    path: Path, image: ImageReader, meaning: Meaning, config: DataConfig, mask: Callable[[Path], ImageReader]
) -> RasterLabels:
    """One mask; arguments and errors are those of `open_source`."""
    place = placement_of(image, mask(path))
    return RasterLabels(lambda: mask(path), meaning, place, size=image.size, use_nodata=config.use_nodata)


def class_files(place: Path, names: Sequence[str]) -> list[Path | None]:
    """The file of each class, None where there is none, from a path with `{class}` and perhaps one `*` in its name."""
    return [_class_file(Path(str(place).replace(CLASS, name))) for name in names]


def _class_file(path: Path) -> Path | None:
    found = sorted(path.parent.glob(path.name)) if "*" in path.name else [path] if path.exists() else []
    if len(found) > 1:
        raise DatasetError(f"{path} fits {len(found)} files, {found[0].name} and {found[1].name}; one mask is needed")
    return found[0] if found else None
