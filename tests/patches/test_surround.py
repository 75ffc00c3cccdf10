"""Patches that are sharp in the middle and show their surroundings, squeezed, in the rim."""

import numpy as np
import pytest
import torch
from torch import nn

import foveate
from foveate import FoveatedSegmenter
from foveate.data.channels import Normalisation
from foveate.data.locations import Augmentation, LocationSpec, read_location
from foveate.data.readers.array import ArrayReader
from foveate.data.sections import AugmentationConfig
from foveate.errors import CheckpointError, ConfigError, GeometryError
from foveate.foveation.config import FoveationConfig
from foveate.foveation.estimators import CoarseFirst, FixedScale, Mixture
from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.source import PixelSource
from foveate.paper import SoftExpectation
from foveate.patches.scales import ScaleSet, assembled, middle_of
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_run
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.train import train_run
from foveate.runs.tune import tune
from toys import labels_of, make_data_set, toy_config

CPU = torch.device("cpu")
SCALES, PYRAMID = ScaleSet(32, (32, 64), 4), ScaleSet(16, (16, 32, 64), 3)


def noise(channels, height, width, dtype=np.float32):
    values = np.random.default_rng(0).random((channels, height, width))
    return (255 * values).astype(np.uint8) if dtype == np.uint8 else values.astype(dtype)


def predicted(model, pixels, **options):
    source = PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)
    whole = torch.full((model(torch.zeros(1, 3, 8, 8)).shape[1], *pixels.shape[1:]), torch.nan)
    for done in finished_blocks(model, source, InferenceConfig(**options)):
        whole[:, *done.window.within(Window.of(source.size))] = done.logits
    return whole


def segmenter(estimator, network=None, scales=None):
    torch.manual_seed(1)
    return ready_to_predict(
        FoveatedSegmenter(
            network or nn.Conv2d(3, 4, 3, padding=1), scales or PYRAMID, estimator=estimator, overview_downsample=4
        ),
        CPU,
    )


def test_what_a_patch_is_made_of():
    scales = ScaleSet(64, (128, 256), 4)
    assert scales.middle == 48
    assert scales.downsample(0) == 128 / 48
    # Eight pixels of rim for 192 pixels of the image: all 512 of them have 21.3 pixels.
    assert scales.parts(0) == ((128, 48), (512, 21))
    assert scales.parts(1) == ((256, 48), (1024, 21))
    plain = ScaleSet(64, (128, 256))
    assert plain.middle == 64
    assert plain.parts(1) == ((256, 64),)


def test_the_picture_around_has_the_parity_of_the_field_of_view_so_that_centres_agree():
    (view, _), (around, _) = ScaleSet(32, (33,), 2.5).parts(0)
    assert (view, around) == (33, 83)


@pytest.mark.parametrize(
    ("patch", "views", "surround", "message"),
    [
        (64, (128,), 1.0, "wider than the field of view, for example 4 times; got 1"),
        (64, (128,), float("inf"), "wider than the field of view"),
        (4, (128,), 4, "no room for a surround; use at least 8 px"),
        (64, (47,), 4, "whose middle has 48 px, and would be enlarged"),
    ],
)
def test_impossible_surrounds_are_refused(patch, views, surround, message):
    with pytest.raises(GeometryError, match=message):
        ScaleSet(patch, views, surround)


def test_a_field_of_view_may_be_as_narrow_as_the_middle():
    assert ScaleSet(64, (48,), 4).downsample(0) == 1


def test_the_middle_is_the_field_of_view_and_the_rim_what_is_around():
    made = assembled([torch.full((1, 3, 24, 24), 1.0), torch.full((1, 3, 11, 11), 5.0)], SCALES)
    expected = torch.full((1, 3, 32, 32), 5.0)
    expected[..., 4:28, 4:28] = 1
    torch.testing.assert_close(made, expected)


def test_bytes_stay_bytes_and_are_rounded():
    sharp, around = torch.full((1, 24, 24), 7, dtype=torch.uint8), torch.full((1, 11, 11), 255, dtype=torch.uint8)
    made = assembled([sharp, around], SCALES)
    assert made.dtype == torch.uint8
    assert made.unique().tolist() == [7, 255]


def test_the_rim_holds_places_in_their_order():
    scales = ScaleSet(64, (64,), 4)  # eight pixels of rim for three quarters of the way from the middle to the border
    wide = torch.nn.functional.interpolate(torch.linspace(-1, 1, 43)[1::2].expand(1, 1, 21), 21)
    sharp = (torch.arange(48) + 0.5) / 24 / 4 - 0.25
    made = assembled([sharp.expand(1, 48, 48), wide.expand(1, 21, 21)], scales)[0]
    row = made[32]
    assert (row.diff() > 0).all()
    torch.testing.assert_close(row[:8], torch.linspace(-1, -0.25, 17)[1::2], atol=0.03, rtol=0)
    torch.testing.assert_close(row[8:56], sharp)
    torch.testing.assert_close(row, -row.flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(made[0], made[3])  # rows above the middle show the same columns


@pytest.mark.parametrize("side", [32, 16, 8, 30])
def test_of_the_output_the_middle_is_kept(side):
    output = ((torch.arange(side) + 0.5) / side).expand(1, 2, side, side)
    kept = middle_of(output, 0.75)
    count = kept.shape[-1]
    assert count == round(0.75 * side)
    torch.testing.assert_close(kept[0, 0, 0], 0.125 + 0.75 * (torch.arange(count) + 0.5) / count)


def test_of_a_plain_patch_all_of_the_output_is_kept_whatever_its_shape():
    output = torch.rand(1, 2, 8, 4)
    assert middle_of(output, 1.0) is output


def test_an_image_may_have_a_gradient_after_a_prediction():
    model = segmenter(FixedScale())
    with torch.inference_mode():
        model(torch.rand(1, 3, 40, 40))
    image = torch.rand(1, 3, 40, 40, requires_grad=True)
    model(image).sum().backward()
    assert image.grad.abs().sum() > 0


def test_a_training_location_shows_its_field_of_view_and_around_it():
    image = noise(3, 96, 128)
    spec = LocationSpec(ScaleSet(16, (24, 48), 2), 8, 2, (0, 1))
    labels = labels_of(ArrayReader(np.zeros((96, 128), np.uint8)), 1)
    location = read_location(ArrayReader(image), labels, (5, 7), spec, [0, 1, 2])
    centre = (44, 60)
    for patch, view in zip(location.patches, (24, 48), strict=True):
        top, left = (place - view // 2 for place in centre)
        window = image[:, top : top + view, left : left + view]
        factor = view // 12
        means = window.reshape(3, 12, factor, 12, factor).mean(axis=(2, 4))
        torch.testing.assert_close(patch[:, 2:14, 2:14], torch.from_numpy(means), atol=1e-5, rtol=0)
    # The corner of the rim lies outside of the field of view, inside of what is twice as wide.
    image[:, 44 - 24 : 44 - 12, 60 - 24 : 60 - 12] = 9
    other = read_location(ArrayReader(image), labels, (5, 7), spec, [0, 1, 2])
    changed = (other.patches[0] != location.patches[0]).any(dim=0)
    assert changed[:2, :2].all()
    assert not changed[2:, 2:].any()


def test_moving_a_location_moves_its_surroundings():
    image = noise(3, 96, 96)
    spec = LocationSpec(ScaleSet(16, (24,), 3), 8, 2, (0,))
    labels = labels_of(ArrayReader(np.zeros((96, 96), np.uint8)), 1)
    found = read_location(ArrayReader(image), labels, (5, 5), spec, [0, 1, 2])
    moved = Augmentation(AugmentationConfig(), 1.0)(found, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    vertical, horizontal = rng.random(2) < 0.5
    turns = int(rng.integers(4))
    expected = image[:, ::-1] if vertical else image
    expected = expected[:, :, ::-1] if horizontal else expected
    expected = np.ascontiguousarray(np.rot90(expected, turns, (1, 2)))
    cell = np.zeros((12, 12))
    cell[5, 5] = 1
    cell = cell[::-1] if vertical else cell
    cell = cell[:, ::-1] if horizontal else cell
    row, col = np.argwhere(np.rot90(cell, turns))[0]
    other = read_location(ArrayReader(expected), labels, (int(row), int(col)), spec, [0, 1, 2])
    torch.testing.assert_close(moved.patches, other.patches, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("block", "surround"), [(16, 4), (48, 1.1), (2048, 2.5)])
def test_an_identity_network_gives_the_image_back(block, surround):
    pixels = noise(3, 70, 53)
    model = segmenter(FixedScale(), nn.Identity(), ScaleSet(16, (12,), surround))
    result = predicted(model, pixels, block_size=block, overlap=0.0, batch_size=4)
    torch.testing.assert_close(result, torch.from_numpy(pixels), atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.from_numpy(pixels)[None])[0], result, atol=1e-5, rtol=0)


@pytest.mark.parametrize("estimator", [FixedScale(index=1), SoftExpectation(), Mixture()], ids=repr)
def test_files_and_tensors_give_the_same_prediction(estimator):
    pixels = noise(3, 70, 90)
    model = segmenter(estimator)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)[None])[0]
    result = predicted(model, pixels, block_size=32, overlap=0.0, batch_size=4)
    torch.testing.assert_close(result.softmax(0), expected.softmax(0), atol=1e-4, rtol=0)


def test_blocks_of_any_size_give_the_same_looks():
    pixels = noise(3, 150, 100)
    model = segmenter(CoarseFirst())
    looks = {"looks": ((16, 0.5), (32, 1.0), (64, 1.0)), "budget": 2000.0, "batch_size": 4}
    whole = predicted(model, pixels, block_size=2048, **looks)
    torch.testing.assert_close(predicted(model, pixels, block_size=64, **looks), whole, atol=1e-5, rtol=0)
    assert not torch.equal(whole, predicted(segmenter(CoarseFirst(), scales=ScaleSet(16, (16, 32, 64))), pixels))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimator": {"name": "cascade"}}, "a cascade gets its surroundings as context from the wider look"),
        ({"estimator": "glnet"}, "works with neither alignment paper nor an estimator that joins two patches"),
        ({"alignment": "paper"}, "works with neither alignment paper nor an estimator"),
        ({"surround": 0.5}, "greater than 1"),
    ],
)
def test_what_does_not_go_together(given, message):
    with pytest.raises(ConfigError, match=message):
        FoveationConfig.parse({"patch_size": 32, "fields_of_view": [32, 64], "surround": 4, **given})


def test_an_ending_of_an_estimators_name_asks_for_a_surround():
    tree = toy_config("somewhere")
    assert RunConfig.parse(tree).foveation.surround is None
    tree["foveation"]["estimator"] = "fixed_2_surround"
    config = RunConfig.parse(tree)
    assert config.foveation.surround == 4
    assert config.foveation.estimator == FixedScale(index=1)
    tree["foveation"]["surround"] = 3
    assert RunConfig.parse(tree).foveation.surround == 3
    tree["foveation"]["estimator"] = "squeezed"
    with pytest.raises(ConfigError, match=r"any estimator can see squeezed surroundings, by foveation.surround: 4"):
        RunConfig.parse(tree)


def test_patches_for_a_training_loop_of_ones_own_are_plain(tmp_path):
    make_data_set(tmp_path / "toy")
    tree = toy_config(tmp_path)
    tree["foveation"]["surround"] = 4
    config = RunConfig.parse(tree)
    with pytest.raises(ConfigError, match=r"overrides=\['foveation.surround=null'\]"):
        foveate.patches(config)
    assert len(foveate.patches(config, length=2, overrides=["foveation.surround=null"])) == 2


def test_the_usual_commands_train_tune_and_evaluate(tmp_path):
    make_data_set(tmp_path / "toy")
    tree = toy_config(tmp_path, steps=3)
    tree["foveation"] = {
        "patch_size": 32, "fields_of_view": [32, 64], "overview_downsample": 8, "estimator": "coarse_first_surround"
    }  # fmt: skip
    run = RunFolder(tmp_path / "run")
    train_run(RunConfig.parse(tree), run, progress=False)
    assert load_run(run.path).segmenter.scales == ScaleSet(32, (32, 64), 4)
    trials = tune(run.path, split="val", budgets=[1.0, 2.0])
    assert {look.view for trial in trials for look in trial.looks} <= {32, 64}
    assert 0 <= evaluate_run(run.path, "test").scores.miou <= 1
    with pytest.raises(CheckpointError, match=r"foveation.surround was 4.0, is now 2.0"):
        load_run(run.path, overrides=["foveation.surround=2"])
