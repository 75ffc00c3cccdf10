"""Training in several processes, which are real ones here, on the CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from devices_worker import train
from lightning.pytorch.strategies.launchers import subprocess_script
from training_toys import ON_CPU, assert_same_weights, weights_of

from foveate.build import load_checkpoint
from foveate.errors import ConfigError
from foveate.processes import is_first_process
from foveate.training.history import read_history
from foveate.training.processes import Processes, ended_together
from process_toys import runs, wait_for
from toys import make_data_set, toy_config, write_config

WORKER = str(Path(__file__).with_name("devices_worker.py"))
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def python(*arguments):
    """Run Python to its end; the limit is only there for a training that hangs."""
    command = [sys.executable, *(str(argument) for argument in arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def weights_on_disk(folder, rank):
    return torch.load(folder / f"rank-{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The run of two processes, to its end."""
    folder = tmp_path_factory.mktemp("pair")
    done = python(WORKER, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process on the same batches: its folder and its task."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, train(folder, ON_CPU)[0]


def test_all_processes_have_the_same_weights(pair):
    assert_same_weights(weights_on_disk(pair, 0), weights_on_disk(pair, 1))


def test_two_processes_learn_what_one_does(pair, alone):
    """Up to rounding: sums over the batch are made in another order, some float32 digits in each of the six steps."""
    one, two = weights_of(alone[1]), weights_on_disk(pair, 0)
    assert one.keys() == two.keys()
    assert not torch.equal(one["segmenter.network.1.running_mean"], torch.zeros(6))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_two_processes_report_what_one_does(pair, alone):
    one, two = (read_history(folder / "metrics.csv") for folder in (alone[0], pair))
    assert len(one) == len(two) == 6
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
        # Scores are counts of pixels: of all processes in one matrix they are the same, not nearly so.
        scores = {key for key in expected if key.startswith(("val/miou", "val/iou"))}
        assert {key: found[key] for key in scores} == {key: expected[key] for key in scores}


def test_one_process_goes_on_from_a_checkpoint_of_two(pair, tmp_path):
    assert_same_weights(load_checkpoint(pair / "checkpoints/last.ckpt")["state_dict"], weights_on_disk(pair, 0))
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    assert train(tmp_path, ON_CPU, resume=True, steps=8)[1].steps == 8
    assert [row["step"] for row in read_history(tmp_path / "metrics.csv")] == list(range(1, 9))


def test_a_killed_process_ends_the_training_and_resuming_it_is_exact(tmp_path, pair):
    killed = python(WORKER, tmp_path, "kill")
    assert killed.returncode != 0
    assert "process 1 was ended by signal 9" in killed.stderr
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] in (3, 4)
    # Another way of starting the processes changes nothing.
    resumed = python(*TORCHRUN, WORKER, tmp_path, "resume")
    assert resumed.returncode == 0, resumed.stderr
    for rank in (0, 1):
        assert_same_weights(weights_on_disk(tmp_path, rank), weights_on_disk(pair, rank))
    assert read_history(tmp_path / "metrics.csv") == read_history(pair / "metrics.csv")


@pytest.mark.parametrize(
    ("mode", "message"), [("nan", "the loss became nan in step 3"), ("unreadable", "cannot be read")]
)
@pytest.mark.slow  # for the interpreters
def test_a_failure_of_one_process_ends_all(tmp_path, mode, message):
    failed = python(WORKER, tmp_path, mode)
    assert failed.returncode != 0
    assert message in failed.stderr
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2


@pytest.mark.slow  # for the interpreters
def test_the_others_end_with_the_first_process_even_if_it_is_killed(tmp_path):
    first = subprocess.Popen([sys.executable, WORKER, str(tmp_path), "wait"], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        pids = [int(wait_for(lambda n=n: (tmp_path / f"{n}.pid").read_text())) for n in (0, 1)]
        assert pids[0] == first.pid
    finally:
        first.kill()
        first.wait()
    wait_for(lambda: not runs(pids[1]))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("devices")
    make_data_set(root / "toy")
    write_config(root / "toy.yaml", toy_config(root, steps=3))
    return root


def foveate_train(workspace, *options, launcher=()):
    command = ("-m", "foveate.cli.app", "train", workspace / "toy.yaml", "--out", workspace / "run")
    return python(*launcher, *command, "--accelerator", "cpu", *options)


def test_command_line(workspace):
    done = foveate_train(workspace, "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained") == 1
    assert done.stderr.count("training toy") == 1
    assert "Warning" not in done.stderr
    assert len(list((workspace / "run/tensorboard").glob("events*"))) == 1
    assert [row["step"] for row in read_history(workspace / "run/metrics.csv")] == [1, 2, 3]


def test_only_the_first_process_goes_on_with_a_script(workspace):
    config, run, script = workspace / "toy.yaml", workspace / "scripted", workspace / "script.py"
    train = f"foveate.train({str(config)!r}, {str(run)!r}, devices='cpu:2', progress=False)"
    script.write_text(f"import foveate\nprint('trained', {train}.path.name)\n")
    done = python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained scripted\n"


@pytest.mark.slow  # for the interpreters
def test_command_line_under_torchrun(workspace):
    assert foveate_train(workspace, "--devices", "2", "--overwrite", launcher=TORCHRUN).returncode == 0
    refused = foveate_train(workspace, "--devices", "2", launcher=TORCHRUN)
    assert refused.returncode != 0
    assert "holds a run already" in refused.stderr
    alone = foveate_train(workspace, "--overwrite", launcher=TORCHRUN)
    assert alone.returncode != 0
    assert "2 processes were started" in " ".join(alone.stderr.split())
    assert (workspace / "run/checkpoints/last.ckpt").exists()


def test_what_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"images_per_step 4 cannot .* 3 processes.*images_per_step=6"):
        Processes.of(3, 1, "cpu").check_share(4)
    Processes.of("2", 2, "cpu").check_share(4)
    for devices in (0, "-1", "all", "1.5", ["cpu", "cpu"]):
        with pytest.raises(ConfigError, match="allowed are auto and whole numbers from 1"):
            Processes.of(devices, 1, "cpu")
    with pytest.raises(ConfigError, match="nodes 0; at least 1"):
        Processes.of(1, 0, "cpu")
    with pytest.raises(ConfigError, match="accelerator 'tpu'; allowed are auto, gpu, mps, cpu"):
        Processes.of(1, 1, "tpu")
    with pytest.raises(ConfigError, match=r"1000 gpu devices were requested and \d+ found"):
        Processes.of(1000, 1, "gpu")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"4 processes were started .* 2 devices x 1 nodes is 2"):
        Processes.of(2, 1, "cpu")
    assert Processes.of(2, 2, "cpu").count == 4


def test_auto_is_one_process_on_a_cpu():
    assert Processes.of("auto", 1, "cpu") == Processes(1, 1, "cpu")


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),  # torchrun in one task of SLURM a computer
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "2"}, False),
    ],
)
def test_the_first_process_is_known_before_they_are_joined(monkeypatch, variables, first):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first


ASKED = """
import subprocess, sys, time
from types import SimpleNamespace
from foveate.training.processes import ended_together
others = [subprocess.Popen([sys.executable, "-c", code]) for code in sys.argv[1:]]
print(*(other.pid for other in others), flush=True)
with ended_together(SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=others)))):
    time.sleep(600)  # as one that waits for the others to come
"""


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (143, "raise SystemExit(143)"),
        (143, "import os; os.kill(os.getpid(), 15)"),
        (130, "raise SystemExit(130)"),
        (1, "raise SystemExit(2)"),
    ],
)
def test_a_process_that_waits_for_one_that_ended_ends_with_all_others(code, end):
    done = python("-c", ASKED, end, "import time; time.sleep(600)")
    assert done.returncode == code, done.stderr
    asked = "stopped with a process that was asked to stop; continue with --resume" in done.stderr
    assert asked == (code > 1)
    assert ("process 1 failed with code 2, which ends the training" in done.stderr) == (code == 1)
    for pid in done.stdout.split():
        wait_for(lambda pid=pid: not runs(int(pid)))


def test_trainings_that_are_not_ours_keep_the_observer_of_lightning():
    before = subprocess_script._launch_process_observer
    with ended_together(SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[])))):
        assert subprocess_script._launch_process_observer is not before
    assert subprocess_script._launch_process_observer is before
