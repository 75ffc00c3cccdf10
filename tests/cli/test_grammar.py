"""One grammar for every command: where to work, and what to change."""

import pytest
import torch
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.cli.predict import refuse_settings
from foveate.cli.terminal import places
from foveate.data.config import DataConfig
from foveate.devices import device_named, device_of
from foveate.errors import ConfigError
from foveate.training.processes import Processes
from toys import make_data_set, toy_config, write_config

COMMANDS = ("train", "evaluate", "compare", "predict", "tune", "report")


def help_of(command):
    return CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_devices_and_says_how(command):
    text = help_of(command)
    assert "--devices" in text
    for example in ("auto", "cpu", "0,2", "0-3"):
        assert example in text, example


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "predict", "tune", "report", "config"])
def test_every_command_with_a_configuration_takes_set(command):
    assert "--set" in help_of(command)


def test_places_follow_the_grammar(monkeypatch):
    assert places("cpu:3", "auto", 1) == ("cpu", 3)
    assert places(None, "cpu", 2) == ("cpu", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert places("0,2", "auto", 1) == ("cuda:0,cuda:2", 2)
    assert [device_of(rank, "cuda:0,cuda:2") for rank in range(3)] == ["cuda:0", "cuda:2", "cuda:0"]
    assert device_named("2") == torch.device("cuda:2")
    with pytest.raises(ConfigError, match="2 places to work at; give one"):
        device_named("0-1")
    trained = Processes.of("1-3")
    assert (trained.per_node, trained.accelerator, trained.numbers) == (3, "gpu", (1, 2, 3))
    two = Processes.of("cpu:2")
    assert (two.per_node, two.accelerator, two.numbers) == (2, "cpu", None)
    with pytest.raises(ConfigError, match="4 CUDA devices were found"):
        Processes.of("4")


def test_set_and_bare_values_are_one_and_the_latter_set_counts(tmp_path):
    make_data_set(tmp_path / "toy")
    path = str(write_config(tmp_path / "toy.yaml", toy_config(tmp_path)))
    said = CliRunner().invoke(app, ["config", path, "training.steps=7", "--set", "training.seed=3"]).output
    assert "steps: 7" in said
    assert "seed: 3" in said
    both = CliRunner().invoke(app, ["config", path, "training.steps=7", "--set", "training.steps=8"]).output
    assert "steps: 8" in both


def test_a_setting_among_the_images_of_predict_is_told_how_to_be_given(tmp_path):
    (tmp_path / "data.a=b").touch()
    refuse_settings(["image.tif", str(tmp_path / "data.a=b"), "https://host/inference.tif?a=b"])
    with pytest.raises(ConfigError, match=r"is a setting, not an image; write --set inference.block_size=1024"):
        refuse_settings(["image.tif", "inference.block_size=1024"])


def test_classes_may_be_names_alone():
    classes = DataConfig(folder="x", classes=["background", "road", "tree"]).classes
    assert [item.name for item in classes] == ["background", "road", "tree"]
    assert classes[0].color == "#000000"
    assert len({item.color for item in classes}) == 3
    many = DataConfig(folder="x", classes=[f"class {i}" for i in range(40)]).classes
    assert len({item.color for item in many}) == 40
    with pytest.raises(ValueError, match="unique"):
        DataConfig(folder="x", classes=["road", "road"])
