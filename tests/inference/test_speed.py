import numpy as np
import pytest
import torch
from torch import nn

from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.errors import ConfigError
from foveate.foveation.estimators import CoarseFirst
from foveate.geometry import Size
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import ready_to_predict
from foveate.inference.runner import in_passes, passes_per_second
from foveate.inference.source import PixelSource
from foveate.looks.pyramid import PyramidGrid, passes_allowed
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter

CPU = torch.device("cpu")


@pytest.fixture
def model():
    network = nn.Conv2d(3, 4, 3, padding=1)
    segmenter = FoveatedSegmenter(network, ScaleSet(16, (16, 32)), estimator=CoarseFirst(), overview_downsample=4)
    return ready_to_predict(segmenter, CPU)


@pytest.fixture
def source():
    pixels = np.zeros((3, 250, 400), np.float32)
    return PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)


def test_seconds_become_passes_by_the_speed_of_the_network(model, source, monkeypatch):
    monkeypatch.setattr("foveate.inference.runner.passes_per_second", lambda *_: 50.0)
    config = InferenceConfig(budget="20 s")
    assert in_passes(config, model, source).budget == 20 * 50 / 0.1
    assert in_passes(InferenceConfig(budget="2.5s"), model, source).budget == 2.5 * 50 / 0.1


@pytest.mark.parametrize("budget", [None, "all", "fixed", 30.0])
def test_other_budgets_stay(model, source, budget):
    config = InferenceConfig(budget=budget)
    assert in_passes(config, model, source) is config


def test_the_speed_is_measured(model, source, monkeypatch):
    monkeypatch.setattr("foveate.inference.runner._SECONDS", 0.05)
    assert passes_per_second(model, source, InferenceConfig(batch_size=4)) > 0


def test_who_cannot_count_seconds_says_so():
    roots = PyramidGrid(Size(100, 100), (16,)).roots
    with pytest.raises(
        ConfigError, match="a budget of 20 s is for `predict`; give passes per megapixel, fixed, 50% or all"
    ):
        passes_allowed("20 s", roots, Size(100, 100), 16)


def test_a_share_is_one_of_what_a_fixed_view_costs():
    roots = PyramidGrid(Size(100, 120), (16,)).roots
    assert [passes_allowed(budget, roots, Size(100, 120), 16) for budget in ("fixed", "100%", "25 %", "0.5%")] == [
        56,
        56,
        14,
        0,
    ]


@pytest.mark.parametrize("budget", ["seconds", "-3 s", "0", -1.0, "%", "-5%", "0%", "0 s", "nan", "", True])
def test_budgets_of_no_meaning_are_refused(budget):
    with pytest.raises(ConfigError, match=r'budget: give passes per megapixel, more than 0; fixed; .* "20 s"; or all'):
        InferenceConfig.parse({"budget": budget})
