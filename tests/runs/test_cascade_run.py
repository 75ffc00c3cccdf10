"""A cascade from its configuration to a trained run."""

import os
import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from foveate.build import load_checkpoint
from foveate.cascade import CascadeSegmenter
from foveate.errors import ConfigError
from foveate.foveation.estimators import Cascade, FixedScale
from foveate.inference.session import Session
from foveate.looks.pyramid import PyramidLook
from foveate.reporting.report import ReportOptions, write_report
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.predict import predict
from foveate.runs.train import prepare_training
from foveate.runs.tune import tune
from foveate.runs.tuned import read_curve
from foveate.training.history import read_history
from foveate.training.processes import Processes
from toys import make_data_set, toy_config, write_config, write_image

LOOKS = {"patch_size": 32, "looks": [64, 32], "overview_downsample": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cascade")
    make_data_set(root / "toy")
    return root


def config(root, estimator=None, **training):
    tree = toy_config(root, **training)
    return {**tree, "foveation": {**LOOKS, **({"estimator": estimator} if estimator else {})}}


class Stop(pl.Callback):
    """Ends a training as a killed one would, before its fourth step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 4:
            raise RuntimeError("killed")


def train(values, path, *, resume=False, callbacks=()):
    run = RunConfig.parse(values)
    prepared = prepare_training(run, RunFolder(path), resume=resume)
    prepared.fit(progress=False, callbacks=callbacks, processes=Processes.of(accelerator="cpu"))
    return load_checkpoint(path / "checkpoints/last.ckpt")["state_dict"]


def test_looks_are_short_for_a_cascade():
    values = config("x", {"share": True})
    parsed = RunConfig.parse(values)
    assert parsed.foveation.fields_of_view == (32, 64)
    assert parsed.foveation.estimator == Cascade(share=True)
    assert RunConfig.parse(parsed.tree()) == parsed
    lengths = {**values, "foveation": {**values["foveation"], "looks": ["64 um", "32 um"]}}
    assert RunConfig.parse(lengths).foveation.fields_of_view == (32, 64)
    assert RunConfig.parse({**values, "method": "cascade"}).foveation.estimator == Cascade(share=True)


def test_another_method_has_the_same_fields_of_view(root):
    path = write_config(root / "looks.yaml", config(root))
    parsed = RunConfig.load(path, estimator="fixed_2")
    assert parsed.foveation.fields_of_view == (32, 64)
    assert parsed.foveation.estimator == FixedScale(index=1)


@pytest.mark.parametrize(
    ("foveation", "says"),
    [
        ({"looks": [32, 64]}, r"widest to the closest, as \[64, 32\]"),
        ({"looks": [80, 32]}, r"\[64, 32\] would|\[96, 32\] would"),
        ({"looks": [64]}, "at least two looks"),
        ({"looks": 64}, "fields of view, widest first"),
        ({"fields_of_view": [32, 128]}, "remove one of them"),
        ({"estimator": {"name": "gumbel"}}, "needs a cascade, but foveation.estimator is gumbel"),
        ({"estimator": {"shared": True}}, "did you mean 'share'"),
        ({"alignment": "paper"}, "does not work with alignment paper"),
    ],
)
def test_looks_that_cannot_be_are_told_what_can(foveation, says):
    with pytest.raises(ConfigError, match=says):
        RunConfig.parse({**config("x"), "foveation": {**LOOKS, **foveation}})


def test_a_cascade_learns_and_is_loaded_again(root, tmp_path):
    path = tmp_path / "run"
    train(config(root, steps=30, validate_every=15), path)
    rows = read_history(path / "metrics.csv")
    assert {"train/look/64", "train/look/32", "train/share/64"} <= rows[0].keys()
    assert rows[0]["train/share/64"] == pytest.approx(1 / 3)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
    loaded = RunFolder(path).load("last", torch.device("cpu"))
    assert isinstance(loaded.segmenter, CascadeSegmenter)
    weights = loaded.segmenter.network.entrances[0].convolutions["3"].weight
    assert weights.abs().sum() > 0


def test_a_resumed_training_ends_with_the_same_weights(root, tmp_path):
    values = config(root, {"drop_context": 0.5}, checkpoint_every=2)
    whole = train(values, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(values, tmp_path / "parts", callbacks=[Stop()])
    assert load_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["global_step"] == 4
    parts = train(values, tmp_path / "parts", resume=True)
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key


def test_two_processes_learn_what_one_does(root, tmp_path):
    """Where nothing is random in a step; up to rounding."""
    sgd = {"optimizer": "sgd", "learning_rate": 0.01, "steps": 3}
    path = write_config(root / "two.yaml", config(root, {"drop_context": 0.0}, **sgd))
    for devices in ("1", "2"):
        command = ["-m", "foveate", "train", str(path), "--accelerator", "cpu", "--devices", devices]
        done = subprocess.run(
            [sys.executable, *command, "--out", str(tmp_path / devices)],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (read_history(tmp_path / devices / "metrics.csv") for devices in ("1", "2"))
    for expected, found in zip(one, two, strict=True):
        assert found["train/look/64"] == pytest.approx(expected["train/look/64"], rel=1e-3)
        assert found["train/look/32"] == pytest.approx(expected["train/look/32"], rel=1e-3)


def test_a_tuned_cascade_has_a_curve_that_its_report_draws_and_its_predictions_follow(root, tmp_path):
    path = tmp_path / "run"
    train(config(root, steps=4), path)
    trials = tune(path, budgets=(0.5, 1.0, 2.0))
    chosen, fixed = read_curve(path / "tuned.json"), read_curve(path / "tuned.json", fixed=True)
    assert [point.budget for point in chosen] == sorted({trial.budget for trial in trials})
    with pytest.raises(ConfigError, match="did you mean 'overlap'"):
        tune(path, overrides=["inference.overlapp=0.5"], overwrite=True)
    alone = {point.budget: point.miou for point in fixed}
    for point in chosen:
        assert point.miou == max(trial.miou for trial in trials if trial.budget == point.budget)
        assert point.miou >= alone.get(point.budget, 0)
    ways = {trial.looks for trial in trials}
    assert {(PyramidLook(32, 1.0), PyramidLook(64, 1.0)), (PyramidLook(32, 1.0),), (PyramidLook(64, 0.5),)} <= ways
    run = load_run(path, overrides=[f"inference.budget={chosen[-1].budget}"])
    assert run.config.inference.looks == chosen[-1].looks
    report = write_report(path, options=ReportOptions(evaluate=False))
    assert "budget.png" in {file.name for file in report.figures}
    page = report.path.read_text()
    assert "mIoU against forward passes" in page
    assert f"{chosen[0].passes_per_megapixel:.0f} passes: {100 * chosen[0].miou:.1f} %" in page


def test_an_image_that_no_widest_look_fits_into_is_segmented_and_that_is_said(root, tmp_path):
    train(config(root, steps=1, warmup_steps=0), tmp_path / "run")
    told, path = [], tmp_path / "small.tif"
    write_image(path, np.full((3, 40, 50), 90, np.uint8))
    summary = predict(load_run(tmp_path / "run"), path, tmp_path / "out", session=Session(tell=told.append))
    assert (summary["height"], summary["width"]) == (40, 50)
    assert any("50 x 40 px is smaller than the widest look of 64 px" in one and "[[32,1]]" in one for one in told)
