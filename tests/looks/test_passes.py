"""The map of passes holds every pass once, where its used part begins, however the image is cut into blocks."""

import json

import numpy as np
import pytest
import torch
from predict_toys import toy_prediction, toy_segmenter, toy_source

from foveate.data.readers.gdal import open_dataset
from foveate.foveation.estimators import CoarseFirst, FixedScale, Mixture
from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.field import FoveationField
from foveate.looks.passes import MappedLook, PassMap, PerTarget
from foveate.paper import SoftExpectation
from foveate.patches.extraction import Windows

PYRAMID = {"planner": "pyramid", "looks": ((16, 0.5), (16, 1.0), (32, 1.0))}


def config(**values):
    return InferenceConfig(**{"block_size": 32, "batch_size": 8, "outputs": ("classes", "passes")} | values)


def model_of(estimator):
    model = toy_segmenter()
    model.estimator = estimator
    return model


def predicted(folder, settings, model):
    """The summary, the map of passes and its tags."""
    summary = toy_prediction(folder, config=settings, model=model).run()
    with open_dataset(folder / "toy.passes.tif") as dataset:
        return summary, dataset.read(), dataset.tags()


@pytest.mark.parametrize("block", [32, 64, 256])
def test_a_pyramid_records_each_of_its_passes_once(tmp_path, block):
    settings = config(**PYRAMID, budget=9000.0, block_size=block)
    summary, passes, tags = predicted(tmp_path, settings, model_of(CoarseFirst()))
    assert json.loads(tags["looks"]) == [[16, 8], [16, 16], [32, 32]]
    assert tags["cell"] == "8"
    assert passes.shape == (3, 19, 26)
    assert (passes > 0).sum() == summary["passes"]
    roots = np.zeros((19, 26), bool)
    roots[::4, ::4] = True
    assert np.array_equal(passes[2] > 0, roots)  # the widest look is made everywhere
    assert not (passes[1] > 0)[1::2].any()  # supports of 16 begin at every second pixel
    assert 0 < (passes[0] > 0).sum() < 19 * 26  # the budget does not pay for all


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_one_pass_a_target_is_at_the_scale_of_the_plan(tmp_path, overlap):
    model = toy_segmenter()
    _, passes, tags = predicted(tmp_path, config(overlap=overlap), model)
    step = int(tags["cell"])
    source = toy_source()
    planned = PerTarget(source.size, 16, overlap, model.estimator).passes(
        Window.of(source.size), FoveationField(model, source)
    )
    expected = np.zeros_like(passes)
    for (tops, lefts, side), weights, _ in planned:
        assert side == 16
        expected[weights.argmax(dim=1), tops // step, lefts // step] = 254
    assert np.array_equal(passes, expected)


@pytest.mark.parametrize("estimator", [SoftExpectation(), Mixture(top=2)])
def test_shares_of_a_place_seen_at_several_scales_add_up_to_one(tmp_path, estimator):
    _, passes, _ = predicted(tmp_path, config(overlap=0.0), model_of(estimator))
    assert np.abs(passes.sum(axis=0).astype(int) - 254).max() <= 1


def test_blocks_smaller_than_a_step_leave_no_gap_and_no_double():
    passes = PassMap(48, (MappedLook(64, 64),))
    made = Windows(*torch.cartesian_prod(torch.arange(0, 150, 48), torch.arange(0, 150, 48)).T, 64)
    whole = passes.shares(Window(0, 0, 150, 150), [(made, torch.ones(len(made.top), 1))])
    assert whole.shape == (1, 4, 4)
    assert bool((whole == 1).all())
    found = torch.zeros(1, 4, 4)
    for top in range(0, 150, 16):
        for left in range(0, 150, 16):
            block = Window(top, left, min(16, 150 - top), min(16, 150 - left))
            place = passes.pixels_of(block)
            part = passes.shares(block, [(made, torch.ones(len(made.top), 1))])
            if place is None:
                assert part.numel() == 0
            else:
                found[:, place.top : place.bottom, place.left : place.right] += part
    assert bool((found == 1).all())


def test_a_fixed_look_uses_its_band_alone(tmp_path):
    _, passes, tags = predicted(tmp_path, config(overlap=0.0), model_of(FixedScale(index=1)))
    assert json.loads(tags["looks"]) == [[16, 16], [32, 16]]
    assert not passes[0].any()
    assert (passes[1] == 254).all()
