"""`foveate train` as a user meets its ends: stopped, resumed, refused while another one is at it."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

import foveate.runs.train  # noqa: F401 - slow, and not to be waited for while a training runs
from foveate.build import load_checkpoint
from foveate.cli.app import app
from process_toys import children, runs, variables, wait_for
from toys import make_data_set, toy_config, write_config

STEPS = 300


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("train-ends")
    make_data_set(root / "toy")
    values = toy_config(root, steps=STEPS, validate_every=STEPS, checkpoint_every=20, schedule="constant")
    return write_config(root / "toy.yaml", values)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The last checkpoint of a training that nobody disturbs."""
    run = tmp_path_factory.mktemp("whole")
    training = command("train", config, "--out", run, "--accelerator", "cpu")
    said = "".join(training.communicate(timeout=240))
    assert training.returncode == 0, said
    return load_checkpoint(run / "checkpoints/last.ckpt")


def command(*arguments):
    words = [sys.executable, "-m", "foveate", *map(str, arguments)]
    return subprocess.Popen(words, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.slow  # for the interpreters
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_well(config, whole, tmp_path, number, code):
    run = tmp_path / "run"
    training = command("train", config, "--out", run, "--accelerator", "cpu")
    try:
        wait_for(lambda: (run / "checkpoints" / "last.ckpt").exists() or training.poll() is not None)
        for option in ("--overwrite", "--resume"):
            refused = invoke("train", config, "--out", run, option)
            assert f"in use by process {training.pid} on " in str(refused.exception)
        training.send_signal(number)
        said = "".join(training.communicate(timeout=240))
    finally:
        training.kill()
    assert training.returncode == code, said
    assert "rained" not in said
    assert not (run / "trained.json").exists()
    assert re.search(rf"stopped after step \d+ of {STEPS}; to continue, run\n\n +foveate train .*--resume\n", said)
    assert not (run / ".lock").exists()
    step = load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]
    assert int(re.search(r"stopped after step (\d+)", said)[1]) == step < STEPS
    resumed = command("train", config, "--out", run, "--accelerator", "cpu", "--resume")
    said = "".join(resumed.communicate(timeout=240))
    assert resumed.returncode == 0, said
    assert (run / "trained.json").exists()
    parts = load_checkpoint(run / "checkpoints/last.ckpt")
    assert parts["global_step"] == whole["global_step"] == STEPS
    for name, value in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], value), name


@pytest.mark.filterwarnings("ignore")  # of the Trainer that is left in its beginnings
@pytest.mark.parametrize("place", ["runs.train.segmenter_of", "training.task.SegmentationTask.train"])
def test_a_signal_before_the_first_step_ends_a_training_at_once(config, tmp_path, monkeypatch, place):
    def never_ends(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        except Exception as error:
            raise ValueError("what builds takes every error for its own") from error

    run = tmp_path / "run"
    words = ["train", str(config), "--out", str(run)]
    monkeypatch.setattr(sys, "argv", ["foveate", *words])
    monkeypatch.setattr(f"foveate.{place}", never_ends)
    ended = invoke(*words)
    assert ended.exit_code == 143
    begun = run.exists()
    assert begun == place.endswith("train")
    again = shlex.join(["foveate", *words, *(["--resume"] if begun else [])])
    assert f"stopped before the first step; to continue, run\n\n    {again}\n" in ended.output
    assert "rained" not in ended.output
    monkeypatch.undo()
    steps = "training.steps=2"
    assert invoke(*words, *(["--resume"] if begun else []), steps).exit_code == 0


@pytest.mark.slow  # for the interpreters
def test_a_signal_to_one_of_two_processes_ends_both(config, tmp_path):
    training = command("train", config, "--out", tmp_path / "run", "--accelerator", "cpu", "--devices", "2")
    wait_for(lambda: (tmp_path / "run/checkpoints/last.ckpt").exists() or training.poll() is not None)
    others = children(training.pid)
    os.kill(training.pid, signal.SIGTERM)
    said = "".join(training.communicate(timeout=240))
    assert training.returncode == 143, said
    assert "rained" not in said
    assert said.count("--resume") == 1
    assert others
    for pid in others:
        wait_for(lambda pid=pid: not runs(pid))


@pytest.mark.slow  # for the interpreters
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_comparison_takes_its_trainings_along(config, tmp_path, number):
    words = ("--estimators", "fixed_1,mean", "--seeds", "0", "--out", tmp_path, "--devices", "cpu:2", "--split", "val")
    comparison = command("compare", config, *words)
    checkpoints = [tmp_path / "runs" / f"{name}-seed0/checkpoints/last.ckpt" for name in ("fixed_1", "mean")]
    wait_for(lambda: all(path.exists() for path in checkpoints) or comparison.poll() is not None)
    trainings = children(comparison.pid)
    assert len(trainings) >= 2
    comparison.send_signal(number)
    said = "".join(comparison.communicate(timeout=240))
    assert comparison.returncode == (143 if number == signal.SIGTERM else -9), said
    for pid in trainings:
        wait_for(lambda pid=pid: not runs(pid))
    for name in ("fixed_1", "mean"):
        assert not (tmp_path / "runs" / f"{name}-seed0" / "trained.json").exists()
        assert not (tmp_path / "runs" / f"{name}-seed0" / ".lock").exists() or number == signal.SIGKILL


def test_a_folder_that_was_only_locked_is_not_left(config, tmp_path):
    failed = invoke("train", config, "data.folder=nowhere", "--out", tmp_path / "new" / "run")
    assert failed.exit_code != 0
    assert not (tmp_path / "new" / "run").exists()
