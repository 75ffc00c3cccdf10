"""What a raster says about itself: its grid, place, scale, class names and colours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.readers import Georeference, open_image
from foveate.data.readers.base import Address
from foveate.data.readers.gdal import open_dataset
from foveate.errors import UnsupportedImageError, reason_of
from foveate.geometry import Size
from foveate.texts import read_tree

Colour = tuple[int, int, int]
_CLASS_TAG = "class_"


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """What is known about a raster before it is read.

    Attributes:
        path: the file, or the URL as a path.
        size, bands, dtype, georeference: as of its reader.
        resolution: metres that a pixel is high and wide, or None.
        stored_levels: number of stored levels; 0 when the file can only be decoded whole.
        descriptions: what each band is, as far as the file says.
        palette: colour by value, for files with a colour table.
        tags: metadata of the file.
        unknown: value that means that nothing is known.
        gain, offset: value = gain * stored + offset.
    """

    path: Path
    size: Size
    bands: int
    dtype: np.dtype[Any]
    georeference: Georeference | None
    resolution: tuple[float, float] | None
    stored_levels: int
    descriptions: tuple[str | None, ...] = ()
    palette: dict[int, Colour] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    unknown: float | None = None
    gain: float = 1
    offset: float = 0

    @property
    def place(self) -> str:
        """Where it is, for people: of a URL without what may be secret."""
        return str(Address.of(self.path))

    @property
    def name(self) -> str:
        """The last part of its place."""
        return Address.of(self.path).path.name

    @property
    def class_names(self) -> dict[int, str]:
        """Names by class id, from the tags that `foveate predict` writes."""
        pairs = ((key.removeprefix(_CLASS_TAG), name) for key, name in self.tags.items() if key.startswith(_CLASS_TAG))
        return {int(key): name for key, name in pairs if key.isdecimal() and len(key) <= 3}

    def band_name(self, band: int) -> str:
        """What a band is, counted from 1."""
        return (self.descriptions[band - 1] if band <= len(self.descriptions) else None) or f"band {band}"

    @property
    def has_classes(self) -> bool:
        """Whether the values are class ids, or bands of overlapping classes, as far as the file says."""
        ids = self.bands == 1 and self.dtype.kind in "bui" and bool(self.palette or self.class_names)
        return ids or self.overlapping

    @property
    def overlapping(self) -> bool:
        """Whether it is a class map with a band for each of several overlapping classes."""
        return self.tags.get("overlapping") == "true"


def raster_facts(path: Path) -> RasterFacts:
    """Read the header of a raster.

    Raises:
        ImageReadError, UnsupportedImageError: when it cannot be opened.
    """
    with open_image(path) as reader:
        return RasterFacts(
            path=path,
            size=reader.size,
            bands=reader.bands,
            dtype=reader.dtype,
            georeference=reader.georeference,
            resolution=(reader.resolution.row, reader.resolution.col) if reader.resolution else None,
            stored_levels=len(reader.levels) if reader.random_access else 0,
            **_more_facts(path),
        )


def _more_facts(path: Path) -> dict[str, Any]:
    """What the reader contract does not hold; nothing for files of which neither GDAL nor OME-Zarr says it."""
    if path.is_dir():
        return _zarr_facts(path)
    try:
        dataset = open_dataset(path)
    except UnsupportedImageError:
        return {}
    with dataset:
        return {
            "descriptions": dataset.descriptions,
            "palette": _palette(dataset),
            "tags": dataset.tags(),
            "unknown": dataset.nodata,
            "gain": dataset.scales[0],
            "offset": dataset.offsets[0],
        }


def _zarr_facts(path: Path) -> dict[str, Any]:
    """Names and colours of OME-Zarr labels, under "image-label" of version 0.4, or within "ome" of 0.5."""
    for name in (".zattrs", "zarr.json"):
        if not (path / name).is_file():
            continue
        tree = read_tree(path / name, UnsupportedImageError, "open another file")
        try:
            tree = tree.get("attributes", tree)
            label = tree.get("ome", tree).get("image-label", {})
            colours = {int(item["label-value"]): tuple(item["rgba"][:3]) for item in label.get("colors", [])}
            names = {f"{_CLASS_TAG}{item['label-value']}": str(item["name"]) for item in label.get("properties", [])}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnsupportedImageError(f"{path / name} is damaged: {reason_of(error)}") from None
        return {"palette": colours, "tags": names}
    return {}


def _palette(dataset: Any) -> dict[int, Colour]:
    """The colour table; GDAL fills it up with black to 256, which is left out."""
    try:
        table = dataset.colormap(1)
    except ValueError:  # there is none
        return {}
    used = [value for value, colour in table.items() if tuple(colour[:3]) != (0, 0, 0)]
    return {value: tuple(table[value][:3]) for value in range(max(used, default=-1) + 1) if value in table}
