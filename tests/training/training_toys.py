"""Tiny data and networks for the training tests, in memory."""

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from foveate.data.datasets import StepBatches
from foveate.data.locations import LocationBatch
from foveate.foveation.estimators import GumbelSoftmax
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter
from foveate.training.config import TrainingConfig
from foveate.training.processes import Processes
from foveate.training.task import SegmentationTask

SCALES = ScaleSet(8, (8, 16))
CLASSES = ["dark", "bright"]
IGNORED = 255
ON_CPU = Processes(1, 1, "cpu")


class ToyLocations(Dataset):
    """Item i: K locations, all bright or all dark with noise; the label says which. Some pixels are ignored."""

    def __init__(self, length, *, locations=4, scales=2, offset=0):
        self.length, self.locations, self.scales, self.offset = length, locations, scales, offset

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng([self.offset, index])
        bright = rng.integers(0, 2, self.locations)
        level = 80 + 90 * bright[:, None, None, None]
        patches = rng.normal(level[:, None], 30, (self.locations, self.scales, 3, 8, 8))
        overview = rng.normal(level, 30, (self.locations, 3, 7, 7))
        label = np.broadcast_to(bright[:, None, None], (self.locations, 8, 8)).astype(np.uint8).copy()
        label[:, 0, :2] = IGNORED
        as_bytes = (torch.from_numpy(array.clip(0, 255).astype(np.uint8)) for array in (overview, patches))
        target = torch.from_numpy(label)
        scales = torch.arange(self.scales).expand(len(target), -1)
        nesting = torch.tensor([-1, 0, 0, 0]).expand(*scales.shape, -1)
        return LocationBatch(*as_bytes, target, target[:, None].repeat(1, self.scales, 1, 1), scales, nesting)


class ToyData(pl.LightningDataModule):
    """Two items a step, as pure functions of the index, from the trainer's step on."""

    def __init__(self, steps, *, scales=2, validation=True, items=ToyLocations):
        super().__init__()
        self.steps, self.scales, self.validation, self.items = steps, scales, validation, items

    def train_dataloader(self):
        data = self.items(2 * self.steps, scales=self.scales)
        place = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        batches = StepBatches(self.steps, 2, lambda: self.trainer.global_step, **place)
        return DataLoader(data, batch_sampler=batches, collate_fn=LocationBatch.concatenate)

    def val_dataloader(self):
        if not self.validation:
            return []
        mine = range(self.trainer.global_rank, 3, self.trainer.world_size)
        return DataLoader(self.items(3, scales=self.scales, offset=1), batch_size=None, sampler=mine)


def small_network(classes=2):
    """Normalisation and dropout, as real networks have, and little else."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(6, classes, 1)
    )


def as_input(batch):
    return batch.float() / 128 - 1


def toy_config(**changes):
    return TrainingConfig.parse(
        {"steps": 6, "locations_per_step": 8, "images_per_step": 2, "learning_rate": 0.01, "validate_every": 2}
        | changes
    )


def toy_task(config=None, estimator=None, seed=0, config_tree=None, kind=SegmentationTask):
    torch.manual_seed(seed)
    config = config or toy_config()
    segmenter = FoveatedSegmenter(small_network(), SCALES, estimator=estimator or GumbelSoftmax())
    return kind(segmenter, config, class_names=CLASSES, normalise=as_input, config_tree=config_tree)


def weights_of(task):
    return {key: value.clone() for key, value in task.state_dict().items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
