"""The examples run as they stand, and show what they say they show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import NetworkError
from foveate.runs.config import RunConfig
from foveate.runs.folder import load_run
from toys import make_data_set, toy_config, write_config

EXAMPLES = Path(__file__).parent.parent / "examples"


def output_of(name, folder, *arguments):
    """What an example prints when it is run in an empty folder."""
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here():
    tested = set(re.findall(r'output_of\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}


def test_own_training_loop(tmp_path):
    assert len((EXAMPLES / "own_training_loop.py").read_text(encoding="utf-8").splitlines()) < 40
    lines = output_of("own_training_loop.py", tmp_path, "16").splitlines()
    losses = [float(re.search(r"loss (\S+)", line)[1]) for line in lines]
    assert losses[-1] < losses[0] / 2
    for line in lines:
        shares = [int(share) for share in re.findall(r"(\d+)%", line)]
        assert len(shares) == 3
        assert abs(sum(shares) - 100) <= 2


def test_own_network(tmp_path):
    directly, by_path = output_of("own_network.py", tmp_path).splitlines()
    assert directly == "directly: (1, 5, 200, 300)"
    assert by_path == "by import path: (1, 5, 200, 300) SmallNetwork"


def test_own_dataset(tmp_path):
    text = output_of("own_dataset.py", tmp_path, str(tmp_path / "here"))
    assert float(re.search(r"mIoU: (\S+)", text)[1]) > 0.6
    assert (tmp_path / "here" / "predictions" / "scene-2.classes.tif").is_file()


@pytest.mark.parametrize(
    "network",
    [
        "own_network:build",
        {"architecture": "own_network:build", "options": {"width": 4}},
        {"architecture": "c1_deepsup", "encoder": "resnet18", "weights": "none", "options": {"depth": 3}},
    ],
)
def test_the_commands_take_any_network(tmp_path, monkeypatch, network):
    monkeypatch.setenv("FOVEATE_CODE", "")
    make_data_set(tmp_path / "toy")
    config = write_config(tmp_path / "toy.yaml", {**toy_config(tmp_path), "network": network})
    for arguments in (["train", config, "--out", tmp_path / "run"], ["evaluate", tmp_path / "run"]):
        words = [str(a) for a in (*arguments, "--code", EXAMPLES)]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert load_run(tmp_path / "run").config.network == RunConfig.load(config).network
    if network == "own_network:build":
        monkeypatch.setenv("FOVEATE_CODE", "")
        monkeypatch.chdir(EXAMPLES)
        with pytest.raises(NetworkError, match="not enough to run code"):
            load_run(tmp_path / "run")
