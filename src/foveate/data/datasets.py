"""Items as a function of (seed, index) only: places to train on and to validate on, and single patches."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, product
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from foveate.data import locations
from foveate.data.area import Polygons
from foveate.data.channels import Normalisation
from foveate.data.checks import check_classes, inspect_samples
from foveate.data.config import DataConfig
from foveate.data.images import SampleReader, open_labels
from foveate.data.label_index import CellSampler, ClassTable, SplitLabels, class_weights, index_masks
from foveate.data.manifest import Sample, load_samples
from foveate.data.sections import SPLITS, AugmentationConfig
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import CellGrid, IntArray, Size
from foveate.patches.scales import ScaleSet

_CELL = 16  # level-0 pixels; how finely places are drawn
_NO_CHANGE = AugmentationConfig(orientations="none")


class LocationDataset(Dataset[locations.LocationBatch]):
    """Item i: one image and K of its locations, the same in every process and in any order.

    The samples are in the order of the sampler's index. Everything is drawn from `numpy.random.default_rng([seed, i])`;
    an item is made when asked for, so that the length costs nothing.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        reader: SampleReader,
        sampler: CellSampler,
        augmentation: locations.Augmentation,
        *,
        locations_per_image: int,
        length: int,
        seed: int = 0,
    ) -> None:
        self._samples, self._reader, self._sampler, self._augment = list(samples), reader, sampler, augmentation
        self._locations, self._length, self._seed = locations_per_image, length, seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> locations.LocationBatch:
        rng = np.random.default_rng([self._seed, index])
        image, cells = self._sampler.draw(rng, self._locations)
        places = [(int(row), int(col)) for row, col in cells]
        drawn = self._reader.read(self._samples[image], places, self._planned(rng, image, places))
        return locations.LocationBatch.stack([self._augment(location, rng) for location in drawn]).of_image(image)

    def _planned(
        self, rng: np.random.Generator, image: int, places: Sequence[tuple[int, int]]
    ) -> list[list[locations.Planned]] | None:
        """The windows of each location, where the spec wants them drawn: nested ones, or one of a drawn scale."""
        spec, grid = self._reader.spec, self._sampler.grid(image)
        cells = [grid.window(*place) for place in places]
        if spec.nesting is not None:
            draw = partial(self._sampler.draw_window, rng, image)
            return [locations.drawn_windows(rng, cell, spec.scales, spec.nesting, grid.image, draw) for cell in cells]
        if not spec.draws_scale:
            return None
        scales = (rng.random(self._locations) * len(spec.scales)).astype(int).tolist()
        return [[locations.Planned(s, spec.scales.window(cell, s))] for s, cell in zip(scales, cells, strict=True)]


class StepBatches(Sampler[list[int]]):
    """The item indices of each training step, from the step where training stands, asked for at each iteration.

    A step has `images_per_step` items over all processes; each takes its share, so that the steps are the same for any
    number of processes.

    Raises:
        ConfigError: when the items of a step cannot be shared out evenly.
    """

    def __init__(
        self, steps: int, images_per_step: int, start: Callable[[], int], *, rank: int = 0, world_size: int = 1
    ) -> None:
        if images_per_step % world_size:
            raise ConfigError(
                f"images_per_step {images_per_step} must be a multiple of the {world_size} processes; change it or the "
                f"number of devices"
            )
        self._steps, self._images, self._start = steps, images_per_step, start
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._start(), self._steps):
            first = step * self._images
            yield list(range(first + self._rank, first + self._images, self._world_size))

    def __len__(self) -> int:
        """Steps of the whole training, not of what is left: a resumed trainer counts on from the batch it was at."""
        return self._steps


class ValidationDataset(Dataset[locations.LocationBatch]):
    """Item i: a batch of locations of one image; images come one after the other, so that each is decoded once.

    Of more than `max_locations` an even part is kept, by the seed. Of images with a region that is labelled, places
    elsewhere are left out.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        sizes: Sequence[Size],
        reader: SampleReader,
        *,
        max_locations: int,
        batch_size: int,
        seed: int = 0,
        regions: Sequence[Polygons | None] | None = None,
    ) -> None:
        self._samples, self._reader, self._sizes = list(samples), reader, list(sizes)
        wanted = regions or [None] * len(sizes)
        places = [
            (i, cell)
            for i, (size, region) in enumerate(zip(sizes, wanted, strict=True))
            for cell in target_cells(size, reader.spec, region)
        ]
        kept = [places[k] for k in spread(len(places), max_locations, seed)]
        cells = {i: [cell for _, cell in group] for i, group in groupby(kept, lambda one: one[0])}
        self._items = [(i, of[k : k + batch_size]) for i, of in cells.items() for k in range(0, len(of), batch_size)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> locations.LocationBatch:
        image, cells = self._items[index]
        drawn = self._reader.read(self._samples[image], cells, self._planned(image, cells))
        return locations.LocationBatch.stack(drawn).of_image(image)

    def _planned(self, image: int, cells: Sequence[tuple[int, int]]) -> list[list[locations.Planned]] | None:
        """The windows of each location, where those of a cascade are asked for."""
        spec = self._reader.spec
        if spec.nesting is None:
            return None
        grid = CellGrid(self._sizes[image], spec.overview_downsample)
        return [locations.windows_as_predicted(grid.window(*cell), spec.scales) for cell in cells]


def target_cells(size: Size, spec: locations.LocationSpec, region: Polygons | None = None) -> list[tuple[int, int]]:
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


class Patch(NamedTuple):
    """A patch and its labels; torch's own collate function makes batches of it.

    Attributes:
        image: (C, P, P) float32, normalised.
        label: (P, P) int64 class ids over the same window, or the ignore_index.
        field_of_view: side of the window, level-0 pixels.
    """

    image: Tensor
    label: Tensor
    field_of_view: int


class PatchDataset(Dataset[Patch]):
    """Item i: a patch at a drawn place and one of the fields of view; a function of (seed, i), in any worker.

    Of the training split places are drawn by class as `data.balance` says, and patches are augmented; of the others
    they are drawn by labelled area alone and left as they are.

    Args:
        config: the data set.
        patch_size: side P.
        fields_of_view: sides of the windows, level-0 pixels, ascending; each is drawn as often.
        split: "train", "val" or "test".
        length: number of items.
        seed: of all draws.

    Raises:
        ConfigError: for another split.
        DatasetError: when the files do not make a data set, the split holds no image, or a class
            has no labelled pixel to train on.
    """

    def __init__(
        self,
        config: DataConfig,
        patch_size: int,
        fields_of_view: Sequence[int],
        *,
        split: str = "train",
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split {split!r}; allowed are {', '.join(SPLITS)}")
        samples = [sample for sample in load_samples(config) if sample.split == split]
        if not samples:
            raise DatasetError(f"no image is in the split {split!r}; see data.split in the configuration")
        trains = split == "train"
        self.normalisation = Normalisation.of(config, inspect_samples(samples, config)[samples[0]].kind.dtype)
        self._views = tuple(fields_of_view)
        masks = [partial(open_labels, sample, config, tissue=config.tissue) for sample in samples]
        index = index_masks(masks, len(config.classes), _CELL)
        if trains:
            training = SplitLabels.of_training(index)
            table = ClassTable(tuple(config.class_names), (training,))
            check_classes(table, config, masks)
        weights = class_weights(config.class_names, config.class_sampling)
        scales, every = ScaleSet(patch_size, self._views), tuple(range(len(self._views)))
        spec = locations.LocationSpec(scales, _CELL, 0, every, window_labels=True, draws_scale=True)
        self._places = LocationDataset(
            samples,
            SampleReader(config, spec),
            CellSampler(index, config.balance if trains else 0.0, weights),
            locations.Augmentation(config.augmentation if trains else _NO_CHANGE, self.normalisation.scale),
            locations_per_image=1,
            length=length,
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Patch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = self._places[index]
        image = self.normalisation(place.patches[0, 0])
        return Patch(image, place.window_labels[0, 0].long(), self._views[int(place.scales[0, 0])])
