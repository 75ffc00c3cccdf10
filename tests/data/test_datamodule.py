from typing import NamedTuple

import numpy as np
import pytest
import torch
from data_toys import data_config, smooth_image, write, write_data_set
from lightning.pytorch import LightningModule, Trainer

from foveate.data.datamodule import FoveateDataModule
from foveate.data.locations import LocationBatch, LocationSpec
from foveate.errors import DatasetError, ImageReadError, UnsupportedImageError
from foveate.patches import ScaleSet

SPEC = LocationSpec(ScaleSet(8, (8, 16)), 4, 3, (0, 1))


def module(root, *, workers=0, steps=6, **values):
    config = data_config(root, workers=workers, **{"split": {"val": []}, **values})
    return FoveateDataModule(config, SPEC, steps=steps, images_per_step=2, locations_per_image=3)


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path, count=4)


def test_loaders(folder):
    data = module(folder, split={"val": ["im3"]})
    data.setup()
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 6
    assert batches[0].patches.shape == (6, 2, 3, 8, 8)
    assert [sample.name for sample in data.samples("val")] == ["im3"]
    assert sum(len(batch.label) for batch in data.val_dataloader()) == 12 * 16
    # Three training masks, five ignored rows each.
    assert data.pixel_counts.sum() == 3 * 85 * 120
    assert data.normalisation.scale == 255


def test_no_validation_is_refused_unless_asked_for(folder):
    for split in ({}, {"test": ["im1"]}, {"train": ["im0", "im1", "im2"], "test": ["im3"]}):
        with pytest.raises(DatasetError, match=r"left for validation.*val=0.2.*data\.split\.val=\[\]"):
            module(folder, split=split).setup()
    for fraction in (0.01, 0.2, 0.6):
        data = module(folder, split={"val": fraction})
        data.setup()
        assert len(data.samples("val")) == max(1, round(4 * fraction))


def test_without_validation_images(folder):
    data = module(folder)
    data.setup()
    assert data.val_dataloader() == []
    with pytest.raises(RuntimeError, match="setup"):
        _ = module(folder).pixel_counts


class Place(NamedTuple):
    """What the data module asks a trainer for."""

    global_rank: int
    world_size: int


def validation_locations(data, rank, processes):
    data.trainer = Place(rank, processes)
    return [patch.numpy().tobytes() for batch in data.val_dataloader() for patch in batch.patches]


def test_processes_share_out_validation_without_repeats(folder):
    data = module(folder, split={"val": ["im2", "im3"]})
    data.setup()
    whole = validation_locations(data, 0, 1)
    parts = [validation_locations(data, rank, 3) for rank in range(3)]
    assert len(set(whole)) == len(whole)
    assert sorted(location for part in parts for location in part) == sorted(whole)
    with pytest.raises(DatasetError, match=r"\d+ batches of validation locations are not enough for 1000 processes"):
        validation_locations(data, 0, 1000)


def test_does_not_touch_the_global_generators(folder):
    data = module(folder, augmentation={"color_jitter": [0.3]})
    data.setup()
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


class Recorder(LightningModule):
    """Trains one number and writes down what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.sums = []

    def training_step(self, batch: LocationBatch, _):
        self.sums.append(int(batch.patches.sum()))
        return self.weight**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, steps, path, resume=None):
    model = Recorder()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    trainer.save_checkpoint(path)
    return model.sums


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_resumed_training_sees_the_batches_it_would_have_seen(folder, tmp_path):
    whole = fit(module(folder), 6, tmp_path / "whole.ckpt")
    first = fit(module(folder), 2, tmp_path / "part.ckpt")
    rest = fit(module(folder), 6, tmp_path / "rest.ckpt", resume=tmp_path / "part.ckpt")
    assert len(whole) == 6
    assert first + rest == whole


@pytest.mark.parametrize("kind", ["size", "label", "missing", "text", "bands", "type", "truncated"])
def test_bad_data_is_found_before_training(folder, kind):
    image, mask = folder / "images" / "im1.png", folder / "masks" / "im1.png"
    expected = {
        "size": (DatasetError, r"im1\.png is 90 x 120 pixels and its mask .*im1\.png is 90 x 119"),
        "label": (DatasetError, r"im1\.png holds the value 7"),
        "missing": (DatasetError, "1 of 4 images have no mask: im1"),
        "text": (UnsupportedImageError, r"no reader can open .*im1\.png"),
        "bands": (DatasetError, r"has 2 bands, but the network takes 3"),
        "type": (DatasetError, r"im0\.png holds uint8 and .*im1\.png holds uint16"),
        "truncated": (ImageReadError, r"could not read .*im1\.png"),
    }[kind]
    if kind == "size":
        write(mask, np.zeros((1, 90, 119), np.uint8), driver="PNG")
    elif kind == "label":
        write(mask, np.full((1, 90, 120), 7, np.uint8), driver="PNG")
    elif kind == "missing":
        mask.unlink()
    elif kind == "text":
        image.write_text("not an image")
    elif kind == "bands":
        write(image, smooth_image(2, 90, 120, np.uint16), driver="GTiff", georeferenced=True)
    elif kind == "type":
        write(image, smooth_image(3, 90, 120, np.uint16), driver="PNG")
    else:
        mask.write_bytes(mask.read_bytes()[:1500])
    with pytest.raises(expected[0], match=expected[1]):
        module(folder).setup()


def test_nothing_to_train_on(folder):
    with pytest.raises(DatasetError, match="no image is left to train on"):
        module(folder, split={"train": [], "val": ["im0", "im1", "im2", "im3"]}).setup()


@pytest.mark.parametrize(("name", "count"), [("hrf", 2), ("idrid", 6), ("dubai", 5)])
def test_real_data(real_data, name, count):
    if not (real_data / name).is_dir():
        pytest.skip(f"the folder has no {name}")
    classes = [{"name": f"c{i}", "color": [i, i, i]} for i in range(count)]
    samples = sorted((real_data / name / "images").iterdir())[:2]
    rest = sorted({p.stem for p in (real_data / name / "images").iterdir()} - {p.stem for p in samples})
    split = {"val": [samples[0].stem], "test": rest}
    # Two images of idrid do not show all of its classes.
    data = module(real_data, folder=name, classes=classes, split=split, steps=1, allow_absent_classes=name == "idrid")
    data.setup()
    (batch,) = data.train_dataloader()
    assert batch.patches.float().std() > 0
