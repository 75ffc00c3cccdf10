"""`PatchDataset`: single patches with their labels, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from foveate.data.channels import Normalisation
from foveate.data.checks import check_classes, inspect_samples
from foveate.data.class_table import ClassTable, SplitLabels
from foveate.data.config import DataConfig
from foveate.data.datasets import LocationDataset
from foveate.data.images import SampleReader, open_labels
from foveate.data.label_index import LabelIndex
from foveate.data.locations import Augmentation, LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.sampling import CellSampler, class_weights
from foveate.data.sections import AugmentationConfig
from foveate.data.splits import SPLITS
from foveate.errors import ConfigError, DatasetError
from foveate.patches.scales import ScaleSet

_CELL = 16  # level-0 pixels; how finely places are drawn
_NO_CHANGE = AugmentationConfig(flip=False, rotate90=False)


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
        self.normalisation = Normalisation.of(config, inspect_samples(samples, config).dtype)
        self._views = tuple(fields_of_view)
        masks = [partial(open_labels, sample, config, tissue=config.tissue) for sample in samples]
        index = LabelIndex.build(masks, len(config.classes), _CELL)
        if trains:
            table = ClassTable(tuple(config.class_names), (SplitLabels("train", len(samples), index.tally),))
            check_classes(table, config, masks)
        weights = class_weights(config.class_names, config.class_sampling)
        self._places = LocationDataset(
            samples,
            SampleReader(config, _spec(ScaleSet(patch_size, self._views))),
            CellSampler(index, config.balance if trains else 0.0, weights),
            Augmentation(config.augmentation if trains else _NO_CHANGE, self.normalisation.scale),
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


def _spec(scales: ScaleSet) -> LocationSpec:
    count = len(scales)
    return LocationSpec(
        scales, _CELL, 0, tuple(range(count)), window_labels=True, scale_shares=tuple(np.full(count, 1 / count))
    )
