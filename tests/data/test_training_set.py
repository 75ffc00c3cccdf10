import pickle

import numpy as np
import pytest
import torch
from data_toys import data_config, write_data_set
from torch.utils.data import DataLoader

from foveate.data.datasets import LocationDataset, StepBatches
from foveate.data.images import SampleReader, open_labels
from foveate.data.label_index import LabelIndex
from foveate.data.locations import Augmentation, LocationBatch, LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.sampling import CellSampler
from foveate.data.sections import AugmentationConfig
from foveate.errors import ConfigError
from foveate.patches.scales import ScaleSet

SPEC = LocationSpec(ScaleSet(8, (8, 16)), 4, 3, (0, 1))


@pytest.fixture
def dataset(tmp_path):
    config = data_config(write_data_set(tmp_path))
    samples = load_samples(config)
    index = LabelIndex.build([lambda s=s: open_labels(s, config) for s in samples], 2, 4)
    augmentation = Augmentation(AugmentationConfig(brightness=0.2, hue=0.1), 255)
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
