"""The script for a card goes through all its parts on a processor, without a network."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("monai")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu  # noqa: E402


@pytest.mark.parametrize("estimator", gpu.TRAININGS)
def test_every_training_can_be_asked_for(estimator, tmp_path):
    options = Namespace(image=tmp_path, patch=gpu.PATCH, steps=gpu.STEPS, places=gpu.PLACES, precision="bf16")
    config = gpu.training_config(estimator, True, options)
    assert config.foveation.estimator.name == estimator
    assert config.training.compile


@pytest.mark.slow
def test_all_parts_run_on_a_processor(tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--cpu", "--tiny", "--results", tmp_path]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    predictions = json.loads((tmp_path / "gpu-predict.json").read_text())["rows"]
    assert [row["side"] for row in predictions] == ["foveate", "monai"]
    assert predictions[0]["passes"] == predictions[1]["passes"] > 100
    trainings = json.loads((tmp_path / "gpu-train.json").read_text())["rows"]
    assert [row["estimator"] for row in trainings] == list(gpu.TRAININGS)
    assert all(row["places/s"] > 0 and row["kept batch, places/s"] > 0 for row in trainings)
