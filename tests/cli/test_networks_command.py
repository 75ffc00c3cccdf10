"""`foveate networks` lists and counts."""

import json

import pytest
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import NetworkError
from foveate.networks.build import network_cost


def invoke(*arguments):
    result = CliRunner().invoke(app, ["networks", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_one_network_is_counted():
    tree = json.loads(
        invoke(
            "--architecture", "unet", "--encoder", "mobilenetv3_small_050", "--patch", "64", "--classes", "3", "--json"
        )
    )
    assert (tree["patch_size"], tree["classes"], tree["in_channels"]) == (64, 3, 3)
    (row,) = tree["networks"]
    assert (row["architecture"], row["encoder"]) == ("unet", "mobilenetv3_small_050")
    cost = network_cost("unet", "mobilenetv3_small_050", patch_size=64, classes=3)
    assert (row["parameters"], row["multiply_adds"]) == cost


def test_an_encoder_is_listed_with_what_it_goes_with():
    tree = json.loads(invoke("--encoder", "resnet18dilated", "--patch", "64", "--json", "--all"))
    assert [row["architecture"] for row in tree["networks"]] == ["c1", "c1_deepsup", "ppm", "ppm_deepsup", "upernet"]
    assert {"fpn", "ppm"} <= set(tree["architectures"])
    assert {"hrnetv2", "tf_efficientnet_lite0", "mit_b0", "convnext_tiny"} <= set(tree["encoders"])
    assert len(tree["encoders"]) == len(set(tree["encoders"]))


def test_the_table_says_how_to_name_ones_own():
    text = invoke("--architecture", "c1", "--patch", "32")
    assert "attention_u_net" in text
    assert "package.module:callable" in text
    assert len([line for line in text.splitlines() if " G " in line]) == 11


def test_an_unknown_name_brings_the_nearest():
    with pytest.raises(NetworkError, match="did you mean resnet50dilated"):
        invoke("--encoder", "resnet50dilate")
