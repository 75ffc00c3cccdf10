"""Items depend on seed and index alone; the places of a validation cover its images."""

import pickle

import numpy as np
import pytest
import torch
from data_toys import data_config, write_data_set
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from foveate.data.datasets import LocationDataset, StepBatches, ValidationDataset, spread, target_cells
from foveate.data.images import SampleReader, open_labels
from foveate.data.label_index import CellSampler, index_masks
from foveate.data.locations import Augmentation, LocationBatch, LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.sections import AugmentationConfig
from foveate.errors import ConfigError
from foveate.geometry import CellGrid, Size, Window
from foveate.patches import ScaleSet

SPEC = LocationSpec(ScaleSet(8, (8, 16)), 4, 3, (0, 1))


@pytest.fixture
def dataset(tmp_path):
    config = data_config(write_data_set(tmp_path))
    samples = load_samples(config)
    index = index_masks([lambda s=s: open_labels(s, config) for s in samples], 2, 4)
    augmentation = Augmentation(AugmentationConfig(color_jitter=(0.2, 0, 0, 0.1)), 255)
    sampler = CellSampler(index, 0.5)
    return LocationDataset(
        samples, SampleReader(config, SPEC), sampler, augmentation, locations_per_image=3, length=24, seed=7
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_item_depends_on_its_index_alone(dataset):
    items = [dataset[i] for i in range(6)]
    torch.manual_seed(99)
    np.random.default_rng(5)
    copy = pickle.loads(pickle.dumps(dataset))
    for i in (5, 0, 3):
        assert same(items[i], copy[i])
    assert not same(items[0], items[1])
    assert items[0].overview.shape == (3, 3, 7, 7)
    assert items[0].patches.shape == (3, 2, 3, 8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_give_the_same_batches(dataset, workers):
    batches = StepBatches(4, 2, lambda: 1)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=LocationBatch.concatenate,
        num_workers=workers,
        generator=torch.Generator(),
    )
    found = list(loader)
    assert len(found) == 3  # one of four steps was done before
    for step, batch in enumerate(found, start=1):
        assert same(batch, LocationBatch.concatenate([dataset[2 * step], dataset[2 * step + 1]]))


def test_batches_start_where_training_stands():
    done = 0
    batches = StepBatches(5, 3, lambda: done)
    assert [b[0] for b in batches] == [0, 3, 6, 9, 12]
    done = 3
    assert list(batches) == [[9, 10, 11], [12, 13, 14]]
    assert len(batches) == 5


def test_processes_share_a_step():
    parts = [list(StepBatches(3, 4, lambda: 0, rank=rank, world_size=2)) for rank in range(2)]
    whole = list(StepBatches(3, 4, lambda: 0))
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == whole
    assert not {index for batch in parts[0] for index in batch} & {index for batch in parts[1] for index in batch}
    with pytest.raises(ConfigError, match="images_per_step 3 must be a multiple of the 2 processes"):
        StepBatches(3, 3, lambda: 0, world_size=2)


def spec(target, cell):
    return LocationSpec(ScaleSet(4, (target,)), cell, 0, (0,))


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 16), st.integers(1, 6))
def test_targets_cover_the_image(height, width, cell, factor):
    size, target = Size(height, width), max(4, cell * factor)
    grid, seen = CellGrid(size, cell), np.zeros((height, width), bool)
    for row, col in target_cells(size, spec(target, cell)):
        assert row < grid.rows
        assert col < grid.cols
        window = grid.window(row, col).centred(target).intersection(Window.of(size))
        if window:
            seen[window.within(Window.of(size))] = True
    assert seen.all()


def test_targets_tile():
    cells = target_cells(Size(96, 96), spec(24, 8))
    assert cells == [(row, col) for row in (1, 4, 7, 10) for col in (1, 4, 7, 10)]


@given(st.integers(1, 500), st.integers(1, 100))
def test_spread_is_even(total, limit):
    places = spread(total, limit, seed=0)
    assert len(places) == min(total, limit)
    assert len(set(places.tolist())) == len(places)
    assert places.max() < total
    gaps = np.diff(places)
    assert (gaps >= 1).all()
    assert gaps.size == 0 or gaps.max() <= 2 * max(1, total / limit) + 1


def test_items(tmp_path):
    config = data_config(write_data_set(tmp_path))
    samples, wanted = load_samples(config), spec(8, 4)
    sizes = [Size(90, 120)] * 3
    dataset = ValidationDataset(samples, sizes, SampleReader(config, wanted), max_locations=50, batch_size=8, seed=1)
    batches = [dataset[i] for i in range(len(dataset))]
    assert sum(len(batch.label) for batch in batches) == 50
    assert max(len(batch.label) for batch in batches) == 8
    images = [image for image, _ in dataset._items]
    assert images == sorted(images)
    assert set(images) == {0, 1, 2}
    with pytest.raises(IndexError):
        dataset[len(dataset)]
