"""GLNet, which sees two fields of view in one pass."""

import numpy as np
import pytest
import torch
from torch import nn

from foveate import FoveatedSegmenter, ScaleSet, build_network
from foveate.data.channels import Normalisation
from foveate.data.readers import open_image
from foveate.data.readers.array import ArrayReader
from foveate.errors import ConfigError, NetworkError
from foveate.foveation.config import FoveationConfig
from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import LookPlan
from foveate.inference.source import PixelSource
from foveate.paper import GLNet
from foveate.paper.networks import Branches, _pasted
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_run
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.train import train_run
from toys import make_data_set, toy_config

CPU = torch.device("cpu")
SCALES = ScaleSet(32, (32, 128))


def fpn():
    torch.manual_seed(0)
    return build_network("fpn", "tf_efficientnet_lite0", classes=2, weights=None)


def segmenter(estimator):
    return FoveatedSegmenter(fpn(), SCALES, estimator=estimator).eval()


@pytest.mark.parametrize("size", [(64, 96), (70, 33)])
def test_whole_images_come_back_at_their_size(size):
    assert segmenter(GLNet())(torch.rand(2, 3, *size)).shape == (2, 2, *size)


def test_what_is_far_changes_what_is_said_of_the_middle():
    model, image = segmenter(GLNet()), torch.rand(1, 3, 128, 128)
    other = image.clone()
    other[..., 20:40, :] = 0  # outside of the narrow window of the tile in the middle, inside of the wide one
    middle = (..., slice(64, 96), slice(64, 96))
    with torch.no_grad():
        assert not torch.equal(model(image)[middle], model(other)[middle])


def test_features_are_pasted_where_the_narrow_window_lies_in_the_wide_one():
    pasted = _pasted(torch.ones(1, 1, 16, 16), 0.25)
    expected = torch.zeros(1, 1, 16, 16)
    expected[..., 6:10, 6:10] = 1
    torch.testing.assert_close(pasted, expected)


def test_both_branches_of_glnet_learn_from_both_windows():
    model = Branches(fpn(), 0.25).train()
    logits, (local, wide) = model(torch.rand(2, 3, 32, 64))
    assert local.shape == wide.shape == (2, 2, 32, 32)
    for output in (logits, local, wide):
        model.zero_grad()
        output.square().sum().backward(retain_graph=True)
        firsts = [next(branch.encoder.parameters()).grad for branch in (model.local, model.wide)]
        assert all(grad is not None and grad.abs().sum() > 0 for grad in firsts)


def test_glnet_says_which_networks_fit():
    with pytest.raises(NetworkError, match=r"glnet needs .* got Conv2d; use one of its architectures"):
        FoveatedSegmenter(nn.Conv2d(3, 2, 1), SCALES, estimator=GLNet())


def test_one_field_of_view_is_too_few():
    with pytest.raises(ConfigError, match="give a narrow and a wide one"):
        FoveationConfig.parse({"patch_size": 32, "fields_of_view": [32], "estimator": "glnet"})


@pytest.mark.parametrize("given", [{"looks": [[32, 1.0]]}, {"planner": "pyramid"}])
def test_there_are_no_looks_to_choose_from(given):
    with pytest.raises(ConfigError, match="has no looks to choose from"):
        LookPlan.of(InferenceConfig.parse(given), GLNet(), SCALES)


def test_the_usual_commands_train_evaluate_and_predict(tmp_path):
    make_data_set(tmp_path / "toy")
    tree = toy_config(tmp_path, steps=3)
    tree["foveation"] = {
        "patch_size": 32,
        "fields_of_view": [32, 48, 64],
        "overview_downsample": 8,
        "estimator": "glnet",
    }
    tree["network"] = {"architecture": "fpn", "encoder": "tf_efficientnet_lite0", "weights": "none"}
    run = RunFolder(tmp_path / "run")
    train_run(RunConfig.parse(tree), run, progress=False)
    evaluation = evaluate_run(run.path, "test")
    assert 0 <= evaluation.scores.miou <= 1
    with open_image(tmp_path / "toy/images/a.png") as reader:
        pixels = reader.read(Window.of(reader.size)).astype(np.float32)  # bytes would be rounded
    model = ready_to_predict(load_run(run.path).segmenter, CPU)
    source = PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)
    config = InferenceConfig.parse({"block_size": 64, "batch_size": 4, "overlap": 0.0})
    whole = torch.full((2, *pixels.shape[1:]), torch.nan)
    for done in finished_blocks(model, source, config):
        whole[:, *done.window.within(Window.of(source.size))] = done.logits
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)[None])[0]
    torch.testing.assert_close(whole.softmax(0), expected.softmax(0), rtol=0, atol=1e-4)
