"""`FoveateDataModule`: the loaders of a training, for Lightning's trainer."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from foveate.data import label_index
from foveate.data.channels import Normalisation, Values, misfits, other_values, select_channels, trained_on
from foveate.data.checks import Facts, check_classes, inspect_samples, notes_on, refuse_lone_value
from foveate.data.config import DataConfig
from foveate.data.datasets import LocationDataset, StepBatches, ValidationDataset
from foveate.data.images import SampleReader, open_labels, open_sample
from foveate.data.locations import Augmentation, LocationBatch, LocationSpec
from foveate.data.manifest import Sample, load_samples, masks_without_image
from foveate.data.sections import SPLITS, Split, TrainedOn, some
from foveate.devices import available_cores
from foveate.errors import DatasetError
from foveate.geometry import IntArray, ceil_div

_MOST_WORKERS = 4
_MOST_BESIDE_GPU = 16
_MEASURED = 32  # images whose values are looked at, of types other than bytes


class FoveateDataModule(LightningDataModule):
    """Loads, checks and indexes a data set once, and makes the loaders.

    Use it with `Trainer(use_distributed_sampler=False)`: the batches are shared out between processes already.

    Args:
        config: the data set.
        spec: what is read at a location.
        steps: optimiser steps of the whole training.
        images_per_step: images of a batch, over all processes.
        locations_per_image: locations of each.
        max_validation_locations: validation locations in total; a batch of them is no larger than one of training.
        seed: of sampling and augmentation.
        progress: called with the share of masks indexed, 0 to 1.
    """

    # After `setup`:
    class_table: label_index.ClassTable  # what is labelled in each split
    trained_on: TrainedOn  # what the training images are like
    normalisation: Normalisation  # how raw values become network input
    notes: tuple[str, ...]  # what was taken for granted or is unusual, in sentences

    def __init__(
        self,
        config: DataConfig,
        spec: LocationSpec,
        *,
        steps: int,
        images_per_step: int = 1,
        locations_per_image: int = 8,
        max_validation_locations: int = 2000,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.spec, self.seed = config, spec, seed
        self.steps, self.images_per_step, self.locations_per_image = steps, images_per_step, locations_per_image
        self.max_validation_locations, self._progress = max_validation_locations, progress
        self._facts: dict[Sample, Facts] = {}
        self._index: list[label_index.ImageLabels] = []

    def setup(self, stage: str | None = None) -> None:
        """Find all files, check every pair by its headers, and index the training masks; later calls do nothing.

        Raises:
            DatasetError: when the files do not make a data set, or a class has no labelled pixel to train on.
        """
        if self._index:
            return
        self._facts = inspect_samples(load_samples(self.config), self.config)
        training = self.samples("train")
        if not training:
            raise DatasetError("no image is left to train on; lower data.split.val or test")
        if not self.samples("val") and self.config.split.val != []:
            raise DatasetError(
                f"none of the {len(self._facts)} images is left for validation, which chooses the checkpoint. Draw "
                "some with data.split.val=0.2, name some in data.split.val, or give training and validation "
                "different regions of one image (column roi). To train without validation, set data.split.val=[]"
            )
        self._check_looks(training)
        masks = [partial(open_labels, sample, self.config, tissue=self.config.tissue) for sample in training]
        classes = len(self.config.classes)
        index = label_index.index_masks(masks, classes, self.spec.overview_downsample, progress=self._progress)
        self.class_table = self._table(index)
        unused, taken = masks_without_image(self.config), notes_on(self._facts)
        unusual = [f"masks without an image of the same name: {some(unused)}"] if unused else []
        unusual += check_classes(self.class_table, self.config, masks, taken)
        self.notes = (*taken, *self._measure(training), *unusual)
        self._index = index

    def _measure(self, training: Sequence[Sample]) -> list[str]:
        """Find out what the training images are like; how some images are unlike the first, in sentences."""
        measured, kinds = training[:: ceil_div(len(training), _MEASURED)], [self._facts[one].kind for one in training]
        self.normalisation = Normalisation.of(self.config, kinds[0].dtype)
        scale, values = self.normalisation.scale, []
        for sample in measured:
            with open_sample(sample, self.config) as image:
                channels = select_channels(image, self.config.bands, self.config.in_channels)
                refuse_lone_value(image, channels, self.config)
                values.append(Values.of(image, channels))
        self.trained_on = trained_on(kinds, values, scale)
        first = trained_on(kinds[:1], values[:1], scale)
        differences = {sample.name: list(misfits(first, facts.kind)) for sample, facts in self._facts.items()}
        for sample, each in zip(measured, values, strict=True):
            differences[sample.name] += filter(None, [other_values(first, each, scale)])
        unlike = ((name, "; ".join(found)) for name, found in differences.items() if found)
        return [f"{name} differs from {training[0].name}: {how}" for name, how in unlike]

    def samples(self, split: Split) -> list[Sample]:
        """The images of a split, sorted by name; after `setup`."""
        return [sample for sample in self._facts if sample.split == split]

    @property
    def pixel_counts(self) -> IntArray:
        """(classes,) training pixels of each class; after `setup`."""
        self._ready()
        return self.class_table.splits[0].tally.counts

    def train_dataloader(self) -> torch.utils.data.DataLoader[LocationBatch]:
        """Batches of `images_per_step * locations_per_image` locations, from the trainer's step on."""
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        rank, world_size = self._place()
        batches = StepBatches(
            self.steps * accumulated,
            self.images_per_step,
            lambda: self.trainer.global_step * accumulated if self.trainer else 0,
            rank=rank,
            world_size=world_size,
        )
        weights = label_index.class_weights(self.config.class_names, self.config.class_sampling)
        dataset = LocationDataset(
            self.samples("train"),
            SampleReader(self.config, self.spec),
            label_index.CellSampler(self._ready(), self.config.balance, weights),
            Augmentation(self.config.augmentation, self.normalisation.scale),
            locations_per_image=self.locations_per_image,
            length=len(batches) * self.images_per_step,
            seed=self.seed,
        )
        return self._loader(dataset, batch_sampler=batches, collate_fn=LocationBatch.concatenate)

    def val_dataloader(
        self,
    ) -> torch.utils.data.DataLoader[LocationBatch] | list[torch.utils.data.DataLoader[LocationBatch]]:
        """Batches of the fixed validation locations; an empty list when no image is in the validation split.

        Raises:
            DatasetError: when there are fewer batches than processes, of which one would have nothing to wait for.
        """
        samples = self.samples("val")
        if not samples:
            return []
        rank, world_size = self._place()
        dataset = ValidationDataset(
            samples,
            [self._facts[sample].size for sample in samples],
            SampleReader(self.config, self.spec),
            max_locations=self.max_validation_locations,
            batch_size=max(1, self.images_per_step * self.locations_per_image // world_size),
            seed=self.seed,
            regions=[self._facts[sample].region for sample in samples],
        )
        if len(dataset) < world_size:
            raise DatasetError(
                f"{len(dataset)} batches of validation locations are not enough for {world_size} processes; raise "
                "training.validation_locations, add validation images or use fewer devices"
            )
        return self._loader(dataset, batch_size=None, sampler=range(rank, len(dataset), world_size))

    @property
    def workers(self) -> int:
        """Reading processes of each loader."""
        return available_workers() if self.config.workers is None else self.config.workers

    def _ready(self) -> list[label_index.ImageLabels]:
        if not self._index:
            raise RuntimeError("call setup() first; a Trainer does this by itself")
        return self._index

    def _check_looks(self, training: Sequence[Sample]) -> None:
        """Refuse a cascade whose widest look no training image fills: it would learn from mirrored borders."""
        if self.spec.nesting is None:
            return
        sizes = [self._facts[sample].size for sample in training]
        longest = max(max(size.height, size.width) for size in sizes)
        closest, *_, widest = self.spec.scales.fields_of_view
        if widest > longest:
            most = longest // closest * closest
            possible = f"looks up to {most} px" if most > closest else f"looks closer than {closest} px"
            raise DatasetError(
                f"the widest look of {widest} px is wider than every training image, of which the largest has a side "
                f"of {longest} px; {possible} are possible: change foveation.looks"
            )

    def _table(self, index: Sequence[label_index.ImageLabels]) -> label_index.ClassTable:
        """What is labelled in every split that has images."""
        others = [
            label_index.count_split(
                split, [partial(open_labels, one, self.config) for one in samples], len(self.config.classes)
            )
            for split in SPLITS[1:]
            if (samples := self.samples(split))
        ]
        return label_index.ClassTable(
            tuple(self.config.class_names), (label_index.SplitLabels.of_training(index), *others)
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, dataset: torch.utils.data.Dataset[LocationBatch], **options: Any
    ) -> torch.utils.data.DataLoader[LocationBatch]:
        return torch.utils.data.DataLoader(
            dataset,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: without one the loader draws from torch's and changes what the model draws.
            generator=torch.Generator(),
            **options,
        )


def available_workers() -> int:
    """Reading processes when none are asked for.

    Where the network runs on the processor too, half the cores this process may use, from 1 to 4; beside a GPU all but
    two of them, from 1 to 16.
    """
    cores = available_cores()
    if torch.cuda.is_available():
        return min(_MOST_BESIDE_GPU, max(1, cores // torch.cuda.device_count() - 2))
    return min(_MOST_WORKERS, max(1, cores // 2))
