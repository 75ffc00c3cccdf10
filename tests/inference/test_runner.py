import pytest
import torch
from torch import nn

from foveate.errors import ConfigError
from foveate.foveation.estimators import FixedScale
from foveate.inference.config import AUTO, InferenceConfig
from foveate.inference.runner import sized, sizes_for
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter

CPU = torch.device("cpu")
GIB = 2**30


def segmenter(patch=16):
    return FoveatedSegmenter(nn.Conv2d(3, 4, 3, padding=1), ScaleSet(patch, (patch,)), estimator=FixedScale())


def test_auto_is_the_default_and_is_kept_in_files():
    config = InferenceConfig.parse({"block_size": "auto", "batch_size": "auto"})
    assert config == InferenceConfig()
    assert (config.block_size, config.batch_size) == (AUTO, AUTO)
    assert {name: config.tree()[name] for name in ("block_size", "batch_size")} == dict.fromkeys(
        ("block_size", "batch_size"), "auto"
    )
    assert InferenceConfig.parse(config.tree()) == config


@pytest.mark.parametrize(("patch", "batch"), [(16, 16), (64, 16), (96, 14), (128, 8), (256, 2), (512, 1), (1024, 1)])
def test_auto_on_a_processor(patch, batch):
    found = sized(InferenceConfig(precision="auto"), segmenter(patch), CPU, "bf16")
    assert (found.batch_size, found.block_size, found.precision) == (batch, 2048, "32")


def test_what_is_given_stays():
    config = InferenceConfig(block_size=512, batch_size=3, precision="bf16")
    assert sized(config, segmenter(), CPU) is config


@pytest.mark.parametrize("wrong", [0, -1, 15, "large", 2.5])
def test_other_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match="block_size"):
        InferenceConfig.parse({"block_size": wrong})


@pytest.mark.parametrize(
    ("total", "patch", "classes", "batch", "block"),
    [
        (80 * GIB, 50 << 20, 3, 64, 4096),
        (8 * GIB, 200 << 20, 3, 16, 4096),
        (8 * GIB, 4 * GIB, 150, 1, 2048),
    ],
)
def test_sizes_of_a_card_follow_from_its_memory(total, patch, classes, batch, block):
    assert sizes_for(total, patch, classes) == {"batch_size": batch, "block_size": block}
