"""What only a CUDA device can show: `pytest -m gpu`. Skipped where there is none, as where they were written."""

import multiprocessing
import os
import signal
import time

import lightning.pytorch as pl
import pytest
import torch
from predict_toys import CLASSES, raster, toy_pixels
from torch import nn
from training_toys import ToyData, toy_config, toy_task, weights_of

from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.foveation.estimators import FixedScale
from foveate.inference.assemble import PredictionFiles
from foveate.inference.config import InferenceConfig
from foveate.inference.job import Prediction
from foveate.inference.session import Session
from foveate.inference.source import PixelSource
from foveate.inference.team import started_team
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter
from foveate.training.config import TrainingConfig
from foveate.training.fit import fit
from foveate.training.processes import Processes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CONFIG = InferenceConfig(block_size=256, batch_size=16, outputs=("classes", "confidence"))
CARD = "cuda:0"


def prediction(folder, device=CARD, config=CONFIG, network=None):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))
    model = FoveatedSegmenter(
        network or layers, ScaleSet(64, (64, 128)), estimator=FixedScale(), overview_downsample=16
    )
    plain = Normalisation(1.0, (0.5,) * 3, (0.3,) * 3)
    source = PixelSource(ArrayReader(toy_pixels(900, 1100)), [0, 1, 2], plain, torch.device(device))
    files = PredictionFiles.in_folder(folder, "toy")
    return Prediction(model, source, files, classes=CLASSES, config=config)


@pytest.fixture(scope="module")
def on_the_processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    prediction(folder, "cpu").run()
    return raster(folder / "toy.classes.tif")


def agreement(folder, expected):
    return float((raster(folder / "toy.classes.tif") == expected).mean())


def test_the_classes_are_those_of_the_processor(tmp_path, on_the_processor):
    prediction(tmp_path).run()
    assert agreement(tmp_path, on_the_processor) >= 0.999


def test_half_precision_changes_few_classes(tmp_path, on_the_processor):
    prediction(tmp_path, config=CONFIG.model_copy(update={"precision": "bf16"})).run()
    assert agreement(tmp_path, on_the_processor) >= 0.95


class Greedy(nn.Conv2d):
    """Runs out of memory on batches above four."""

    def forward(self, x):
        if len(x) > 4:
            torch.empty(1 << 45, dtype=torch.uint8, device=x.device)
        return super().forward(x)


def test_where_memory_does_not_suffice_batches_are_halved(tmp_path):
    told = []
    prediction(tmp_path, network=Greedy(3, 4, 3, padding=1)).run(Session(tell=told.append))
    assert [line.rpartition("=")[2] for line in told if "batch_size" in line] == ["8", "4"]


def _run(folder):
    prediction(folder).run(resume=True)


def test_a_killed_run_is_gone_on_with_to_the_same_bytes(tmp_path):
    prediction(tmp_path / "whole").run()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(tmp_path / "killed",))
    process.start()
    end = time.monotonic() + 60
    while process.is_alive() and not list((tmp_path / "killed").glob(".toy.partial/blocks/*.block")):
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    prediction(tmp_path / "killed").run(resume=True)
    for name in ("classes.tif", "confidence.tif"):
        assert (tmp_path / f"killed/toy.{name}").read_bytes() == (tmp_path / f"whole/toy.{name}").read_bytes()


def _help(team, folder):
    while team.hears(0) is None:
        time.sleep(0.01)
    prediction(folder).help(Session(team))


def test_two_processes_share_one_card(tmp_path, on_the_processor):
    with started_team([CARD, CARD], _help, tmp_path) as team:
        prediction(tmp_path).run(Session(team))
    assert agreement(tmp_path, on_the_processor) >= 0.999


ON_CARD = Processes(1, 1, "gpu")


def train(task, folder, steps, **options):
    return fit(task, ToyData(steps), folder, processes=ON_CARD, progress=False, **options)


def test_a_training_goes_on_from_its_checkpoint(tmp_path):
    config = toy_config(steps=6, deterministic=True, checkpoint_every=3, validate_every=3)
    whole, second = toy_task(config), toy_task(config)
    train(whole, tmp_path / "whole", 6)
    half = toy_task(toy_config(steps=3, deterministic=True, checkpoint_every=3, validate_every=3))
    train(half, tmp_path / "parts", 3)
    train(second, tmp_path / "parts", 6, resume=True)
    one, other = weights_of(whole), weights_of(second)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-3)


def test_no_step_of_a_training_waits_for_the_card(tmp_path, monkeypatch):
    """Between two logged steps nothing synchronises: torch raises where something does."""
    monkeypatch.setattr(TrainingConfig, "log_interval", 12)
    task = toy_task(toy_config(steps=12, validate_every=12))
    begin, end = 4, 8

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, *arguments):
            if trainer.global_step == begin:
                torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, trainer, module, *arguments):
            if trainer.global_step == end:
                torch.cuda.set_sync_debug_mode("default")

    try:
        train(task, tmp_path, 12, callbacks=[Watch()])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_pass_of_a_block_waits_for_the_card(tmp_path):
    """Cutting, normalising, the network and stitching ask the device for nothing."""
    from foveate.inference.runner import Runner  # noqa: PLC0415
    from foveate.inference.source import mixed_patches, read_regions  # noqa: PLC0415
    from foveate.inference.stitch import Stitcher, add_outputs  # noqa: PLC0415
    from foveate.looks.passes import Passes  # noqa: PLC0415
    from foveate.patches.extraction import Windows  # noqa: PLC0415

    one = prediction(tmp_path)
    model, source = one.segmenter, one.source
    tops, lefts = torch.arange(0, 512, 48), torch.arange(0, 512, 48)
    grid = torch.cartesian_prod(tops, lefts)[: CONFIG.batch_size]
    weights = torch.tensor([[1.0, 0.0]]).expand(len(grid), -1)
    passes = Passes(Windows(grid[:, 0], grid[:, 1], 64), weights, torch.ones(len(grid)))
    regions, run = read_regions(passes, source, model.scales), Runner([model], source, CONFIG)

    def work():
        stitcher = Stitcher(one.grid[0], source.device, "hann")
        outputs = run(mixed_patches(passes, regions, model.scales), passes.scale_weights).logits
        add_outputs(stitcher, passes, outputs, model, by_probability=False)

    work()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
