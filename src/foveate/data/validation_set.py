"""Validation items: a fixed list of places, evenly spread over all validation images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, product
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from torch.utils.data import Dataset

from foveate.data.area.region import Region
from foveate.data.locations import LocationBatch, LocationSpec
from foveate.data.manifest import Sample
from foveate.data.nesting import Planned, windows_as_predicted
from foveate.data.sample_reader import SampleReader
from foveate.geometry import CellGrid, Size
from foveate.types import IntArray

_Place: TypeAlias = tuple[int, int, int]  # image, row, col


class ValidationDataset(Dataset[LocationBatch]):
    """Item i: a batch of locations of one image; images come one after the other, so that each is decoded once.

    Args:
        samples: the validation images.
        sizes: their sizes.
        reader: reads them.
        spec: what is read at a location.
        max_locations: locations in total; of more, an even part is kept, the same one every time.
        batch_size: most locations of an item.
        seed: changes which part is kept.
        regions: of each image what is labelled; places elsewhere are left out. None for all of it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        sizes: Sequence[Size],
        reader: SampleReader,
        spec: LocationSpec,
        *,
        max_locations: int,
        batch_size: int,
        seed: int = 0,
        regions: Sequence[Region | None] | None = None,
    ) -> None:
        self._samples, self._reader, self._sizes, self._spec = list(samples), reader, list(sizes), spec
        wanted = regions or [None] * len(sizes)
        places = [
            (i, row, col)
            for i, (size, region) in enumerate(zip(sizes, wanted, strict=True))
            for row, col in target_cells(size, spec, region)
        ]
        kept = [places[k] for k in spread(len(places), max_locations, seed)]
        self._items = [part for _, group in groupby(kept, itemgetter(0)) for part in _parts(list(group), batch_size)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> LocationBatch:
        item = self._items[index]
        cells = [(row, col) for _, row, col in item]
        image = item[0][0]
        locations = self._reader.read(self._samples[image], cells, self._planned(item))
        return LocationBatch.stack(locations).of_image(image)

    def _planned(self, item: list[_Place]) -> list[list[Planned]] | None:
        """The windows of each location, where those of a cascade are asked for."""
        if self._spec.nesting is None:
            return None
        grids = (CellGrid(self._sizes[i], self._spec.overview_downsample).window(row, col) for i, row, col in item)
        return [windows_as_predicted(cell, self._spec.scales) for cell in grids]


def target_cells(size: Size, spec: LocationSpec, region: Region | None = None) -> list[tuple[int, int]]:
    """Cells whose targets cover the image; they tile it where the target's side is a multiple of the cell's.

    Only cells of the grid are taken, as the policy decides for no other: at the lower and right border the last target
    may overlap the one before it. Of an image that is labelled in a region, those whose targets meet none of its
    polygons are left out.
    """
    grid = CellGrid(size, spec.overview_downsample)
    rows, cols = (_axis(count, grid.cell, spec.scales.target) for count in (grid.rows, grid.cols))
    cells = product(rows, cols)
    if region is None:
        return list(cells)
    return [cell for cell in cells if region.meets(spec.scales.window(grid.window(*cell), 0))]


def _axis(cells: int, cell: int, target: int) -> list[int]:
    step = max(1, target // cell)
    starts = [min(k, cells - 1) for k in range((step - 1) // 2, cells + step // 2, step)]
    return sorted(set(starts))


def spread(total: int, limit: int, seed: int) -> IntArray:
    """At most `limit` of `range(total)`, one drawn in each of as many equal parts: even, but on no regular grid."""
    if total <= limit:
        return np.arange(total)
    bounds = np.arange(limit + 1) * total // limit
    return np.random.default_rng(seed).integers(bounds[:-1], bounds[1:])


def _parts(places: list[_Place], size: int) -> list[list[_Place]]:
    return [places[start : start + size] for start in range(0, len(places), size)]
