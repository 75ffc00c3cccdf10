"""Which value, or which colour, of a mask file means which class."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from foveate.data.readers.pyramid import ImageReader
from foveate.errors import DatasetError
from foveate.geometry import IGNORE, Array, BoolArray, IntArray, LabelArray, Raster

NO_CLASS = -1
_SHOWN = 12
# Values nearer than this to each other are not told apart under a JPEG's noise.
_APART = 16


class _Lookup:
    """Class ids by whole numbers of any size, which stand for what is in a mask.

    Args:
        entries: class id or `IGNORE` by number.
        rounded: whether the nearest allowed value is taken for one that is not allowed; also an attribute.
    """

    in_colours = False
    _named: IntArray = np.empty(0, np.int64)

    def __init__(self, entries: Mapping[int, int], *, rounded: bool) -> None:
        self.rounded, self._keys = rounded, np.array(sorted(entries), np.int64)
        self._ids = np.array([entries[key] for key in sorted(entries)], np.int16)
        self._table = self._searched(np.arange(min(max(int(self._keys[-1]), 0), np.iinfo(np.uint16).max) + 2))

    def ids(self, values: Array) -> LabelArray:
        """The class id or `IGNORE` of each number, `NO_CLASS` of one that is not allowed; NaN is `IGNORE`."""
        # All values above the last key are alike, so a short table holds what is needed, and is far quicker.
        if values.dtype.kind in "iu" and self._keys[-1] <= np.iinfo(np.uint16).max and values.min(initial=0) >= 0:
            last = values.dtype.type(min(len(self._table) - 1, np.iinfo(values.dtype).max))
            return np.asarray(self._table[np.minimum(values, last)], np.int16)
        found = self._searched(values)
        if values.dtype.kind == "f":
            found[np.isnan(values)] = IGNORE
        return found

    def names(self, values: Array) -> BoolArray:
        """Which numbers count whatever the mask says of pixels without data: those that are keys of the label map."""
        return np.isin(values, self._named)

    def refuse(self, values: Array, ids: LabelArray, counted: BoolArray, location: str) -> None:
        """Refuse numbers (h, w) that are not allowed where they count."""
        wrong = (ids == NO_CLASS) & counted
        if wrong.any():
            raise self._refusal(values, np.unique(values[wrong]), location)

    def _refusal(self, values: Array, wrong: Array, location: str) -> DatasetError:
        raise NotImplementedError

    def _searched(self, values: Array) -> LabelArray:
        place = np.searchsorted(self._keys, values).clip(max=len(self._keys) - 1)
        return np.where(self._keys[place] == values, self._ids[place], np.int16(NO_CLASS))


class LabelTable(_Lookup):
    """The values of masks of one band.

    A class that `label_map`, from values to class ids or `IGNORE`, leads nothing to keeps its own id as its value, so
    `{255: 1}` is enough for masks of 0 and 255. NaN is `IGNORE`, and so is that number unless the map says else.
    Masks of several equal bands, such as grey pictures saved in colour, are masks of one. `rounded` takes the nearest
    allowed value for one that is not allowed.

    Raises:
        DatasetError: when values are to be rounded and lie too close to each other for that.
    """

    def __init__(self, classes: int, label_map: Mapping[int, int] | None = None, *, rounded: bool = False) -> None:
        named = self._map = dict(label_map or {})
        own = {label: label for label in range(classes) if label not in named.values()}
        super().__init__({IGNORE: IGNORE, **own, **named}, rounded=rounded)
        self._classes, self._named = classes, np.array(sorted(named), np.int64)
        if rounded and (np.diff(self._keys) < _APART).any():
            raise DatasetError(
                f"data.round_labels needs values at least {_APART} apart, got {_listed(self._keys)}; name the "
                "values of the masks, for example data.label_map={0: 0, 255: 1}"
            )

    def check(self, mask: ImageReader) -> tuple[str, ...]:
        """Refuse a mask by its header; what is taken for granted of it: that several bands are equal."""
        if mask.dtype.kind not in "buif":
            raise DatasetError(f"the mask {mask.location} holds {mask.dtype}; a mask is one band of class ids")
        return (f"the mask has {mask.bands} equal bands; Foveate reads the first",) if mask.bands > 1 else ()

    def values(self, pixels: Raster, location: str) -> Array:
        """One number for each pixel (bands, h, w), (h, w); `DatasetError` when they are of another kind."""
        if self.rounded:
            pixels = self._keys[np.searchsorted((self._keys[1:] + self._keys[:-1]) / 2, pixels)]
        if len(pixels) > 1 and (pixels[1:] != pixels[:1]).any():
            raise DatasetError(_several_bands(pixels, location, self._classes))
        band: Array = pixels[0]
        return band

    def _refusal(self, values: Array, wrong: Array, location: str) -> DatasetError:
        if wrong.dtype.kind == "f" and (broken := wrong[wrong != np.floor(wrong)]).size:
            return DatasetError(
                f"the mask {location} holds the value {broken[0]:g}, which is not a whole number; a mask is one band "
                "of class ids, not of probabilities or heights"
            )
        more = f" It also holds {_listed(wrong[1:])}." if len(wrong) > 1 else ""
        # All values in order where there are as many as classes, else the first that is not allowed.
        present = np.unique(values[np.isfinite(values)])
        enough = len(present) == self._classes
        entries = [(value, label) for label, value in enumerate(present)] if enough else [(wrong[0], 1)]
        example = ", ".join(f"{_number(value)}: {label}" for value, label in entries)
        return DatasetError(
            f"the mask {location} holds the value {_number(wrong[0])}; allowed are {_listed(self._keys)}.{more} Map "
            f"the values of the file to class ids with data.label_map, for example data.label_map={{{example}}}"
        )

    def shown(self, value: Any) -> str:
        """A number as a user knows it."""
        return _number(value)

    def setting(self, value: Any, label: int) -> str:
        """What in the configuration makes a number a class: the label map with one entry more."""
        entries = ", ".join(f"{key}: {meant}" for key, meant in {**self._map, int(value): label}.items())
        return f"data.label_map={{{entries}}}"


class ColourTable(_Lookup):
    """The colours of masks of three bands, or of one with a colour table, by the class id or `IGNORE` they mean."""

    in_colours = True

    def __init__(self, colours: Mapping[tuple[int, int, int], int], *, rounded: bool = False) -> None:
        super().__init__({int(packed(np.array(one))): label for one, label in colours.items()}, rounded=rounded)
        self._colours = np.array(sorted(colours), np.int64)

    def check(self, mask: ImageReader) -> tuple[str, ...]:
        """Refuse what is no picture in colours of 8 bits."""
        if (mask.bands != 3 or mask.dtype != np.uint8) and not mask.palette:
            raise DatasetError(
                f"the mask {mask.location} has {mask.bands} bands of {mask.dtype}, but data.label_map names colours, "
                "which masks with three uint8 bands or a colour table have; remove it if the masks hold class ids"
            )
        return ()

    def values(self, pixels: Raster, location: str) -> Array:
        """Red, green and blue as one number, of the nearest by the squared distance where it is rounded."""
        values = packed(pixels)
        if not self.rounded:
            return values
        found, back = np.unique(values, return_inverse=True)
        parts = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1)
        distance = ((parts[:, None] - self._colours[None]) ** 2).sum(axis=2)
        nearest = packed(self._colours[distance.argmin(axis=1)].T)
        return np.asarray(nearest[back].reshape(values.shape))

    def _refusal(self, values: Array, wrong: Array, location: str) -> DatasetError:
        found = _colour_names(wrong)
        return DatasetError(
            f"the mask {location} holds the colour {found}; allowed are {_colour_names(self._keys)}. Name every "
            f"colour in data.label_map, for example data.label_map={{'{found.split(',')[0]}': 1}}, those that do not "
            f"count with {IGNORE}"
        )

    def shown(self, value: Any) -> str:
        """Such as #ff0000."""
        return _colour_names(np.array([value]))

    def setting(self, value: Any, label: int) -> str:
        """The colour's entry among the others."""
        return f"'{self.shown(value)}': {label} in data.label_map"


Meaning: TypeAlias = LabelTable | ColourTable


def _several_bands(pixels: Raster, location: str, classes: int) -> str:
    text = f"the mask {location} has {len(pixels)} different bands of {pixels.dtype}; a mask has one band of class ids"
    if len(pixels) != 3 or pixels.dtype != np.uint8:
        return text
    found = np.unique(packed(pixels))
    example = ", ".join(f"'{_colour_names(one[None])}': {label}" for label, one in enumerate(found[:classes]))
    return (
        f"{text}. It holds colours ({_colour_names(found)}): map them to classes with data.label_map=colors for "
        f"those of data.classes, or for example data.label_map={{{example}}}"
    )


def packed(pixels: Array) -> IntArray:
    """Red, green and blue (3, ...), a byte each, as one number, 0xRRGGBB."""
    red, green, blue = pixels.astype(np.int64)
    values: IntArray = (red << 16) + (green << 8) + blue
    return values


def _colour_names(packed: Array) -> str:
    return ", ".join(f"#{value:06x}" for value in packed[:_SHOWN].tolist()) + (", ..." if len(packed) > _SHOWN else "")


def _listed(values: Array) -> str:
    return ", ".join(map(_number, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")


def _number(value: Any) -> str:
    return f"{value:.0f}" if np.asarray(value).dtype.kind == "f" else str(int(value))
