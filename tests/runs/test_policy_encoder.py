"""A run whose policy reads the overview through a pretrained encoder."""

import timm
import torch
from typer.testing import CliRunner

from foveate import load_run
from foveate.cli.app import app
from toys import make_data_set, toy_config, write_config


def test_the_encoder_is_frozen_and_comes_back_without_its_file(tmp_path):
    make_data_set(tmp_path / "toy")
    stored = timm.create_model("resnet18").state_dict()
    weights = tmp_path / "resnet18.pth"
    torch.save(stored, weights)
    tree = toy_config(tmp_path)
    tree["foveation"] |= {
        "estimator": {"name": "mixture", "regress": 1.0},
        "policy": {"encoder": "resnet18", "weights": str(weights)},
    }
    command = ["train", str(write_config(tmp_path / "toy.yaml", tree)), "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    weights.unlink()
    encoder = load_run(tmp_path / "run").segmenter.policy.features.state_dict()
    assert len(encoder) > 20
    for name, value in encoder.items():
        assert torch.equal(value, stored[name.removeprefix("stages.model.")])
