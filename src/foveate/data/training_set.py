"""Training items as a function of (seed, index) only, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from torch.utils.data import Dataset, Sampler

from foveate.data.augmentation import Augmentation
from foveate.data.locations import LocationBatch
from foveate.data.manifest import Sample
from foveate.data.nesting import Planned, drawn_windows
from foveate.data.sample_reader import SampleReader
from foveate.data.sampling import CellSampler
from foveate.errors import ConfigError


class LocationDataset(Dataset[LocationBatch]):
    """Item i: one image and K of its locations, the same in every process and in any order.

    Args:
        samples: the training images, in the order of the sampler's index.
        reader: reads them.
        sampler: draws image and cells.
        augmentation: changes each location.
        locations_per_image: K.
        length: number of items; an item is made when asked for, so it costs nothing.
        seed: everything is drawn from `numpy.random.default_rng([seed, index])`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        reader: SampleReader,
        sampler: CellSampler,
        augmentation: Augmentation,
        *,
        locations_per_image: int,
        length: int,
        seed: int = 0,
    ) -> None:
        self._samples, self._reader, self._sampler, self._augment = list(samples), reader, sampler, augmentation
        self._locations, self._length, self._seed = locations_per_image, length, seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> LocationBatch:
        rng = np.random.default_rng([self._seed, index])
        image, cells = self._sampler.draw(rng, self._locations)
        places = [(int(row), int(col)) for row, col in cells]
        locations = self._reader.read(self._samples[image], places, self._planned(rng, image, places))
        return LocationBatch.stack([self._augment(location, rng) for location in locations]).of_image(image)

    def _planned(
        self, rng: np.random.Generator, image: int, places: Sequence[tuple[int, int]]
    ) -> list[list[Planned]] | None:
        """The windows of each location, where the spec wants them drawn: nested ones, or one of a drawn scale."""
        spec, grid = self._reader.spec, self._sampler.grid(image)
        cells = [grid.window(*place) for place in places]
        if spec.nesting is not None:
            draw = partial(self._sampler.draw_window, rng, image)
            return [drawn_windows(rng, cell, spec.scales, spec.nesting, grid.image, draw) for cell in cells]
        if spec.scale_shares is None:
            return None
        scales = map(int, rng.choice(len(spec.scale_shares), self._locations, p=spec.scale_shares))
        return [[Planned(s, spec.scales.window(cell, s))] for s, cell in zip(scales, cells, strict=True)]


class StepBatches(Sampler[list[int]]):
    """The item indices of each training step, from the step where training stands.

    Args:
        steps: steps of the whole training.
        images_per_step: items of a step, over all processes.
        start: gives the number of steps already done, asked each time an iteration begins.
        rank, world_size: this process and how many there are; each takes its share of a step's items, so that the
            steps are the same for any number of processes.

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
