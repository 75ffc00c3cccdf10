"""Test-time augmentation: the mean over all ways to see a patch, each paid for."""

import pytest
import torch
from torch import nn

import foveate
from foveate.errors import ConfigError
from foveate.runs.config import RunConfig
from foveate.runs.predict_array import predict_array
from foveate.segmenter import FoveatedSegmenter
from toys import shapes, toy_config, write_image


def run_of(tmp_path, network, estimator=None, **inference):
    tree = toy_config(tmp_path)
    tree["foveation"]["estimator"] = estimator or {"name": "fixed", "index": 0}
    tree["inference"] |= inference
    config = RunConfig.parse(tree)
    segmenter = FoveatedSegmenter(
        network, config.foveation.scales, overview_downsample=8, estimator=config.foveation.estimator
    )
    return foveate.Run(config, segmenter.eval(), torch.device("cpu"))


class Slanted(nn.Module):
    """Says something else of every way to see a patch: the classes depend on the place in the patch."""

    def forward(self, image):
        side = image.shape[-1]
        rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        ramp = (rows * 0.1 + cols * 0.03).expand(len(image), 1, -1, -1)
        return torch.cat([image[:, :1] + ramp, -image[:, 1:2]], dim=1)


def ways(kind):
    turns = (0, 2) if kind == "flips" else range(4)
    return [(turn, flip) for turn in turns for flip in (False, True)]


@pytest.mark.parametrize("kind", ["flips", "d4"])
def test_it_is_the_mean_over_all_ways(tmp_path, kind):
    image = torch.from_numpy(shapes(3, 32, 32)[0])
    options = {"overlap": 0, "blending": "none"}
    plain, both = (run_of(tmp_path, Slanted(), tta=tta, **options) for tta in (None, kind))
    total = 0
    for turn, flip in ways(kind):
        seen = torch.rot90(image.flip(-1) if flip else image, turn, (-2, -1))
        said = torch.from_numpy(predict_array(plain, seen, axes="CHW").probabilities)
        back = torch.rot90(said, -turn, (-2, -1))
        total = total + (back.flip(-1) if flip else back)
    got = torch.from_numpy(predict_array(both, image, axes="CHW").probabilities)
    assert torch.allclose(got, total / len(ways(kind)), atol=1e-5)
    assert not torch.allclose(got, torch.from_numpy(predict_array(plain, image, axes="CHW").probabilities), atol=1e-2)


def test_each_way_is_a_pass(tmp_path):
    path = write_image(tmp_path / "a.png", shapes(3)[0])
    summaries = [
        run_of(tmp_path, Slanted(), tta=tta).predict(path, tmp_path / str(tta)) for tta in (None, "flips", "d4")
    ]
    assert [s["passes"] / summaries[0]["passes"] for s in summaries] == [1, 4, 8]


def test_a_budget_buys_fewer_looks(tmp_path):
    path = write_image(tmp_path / "a.png", shapes(3)[0])
    runs = {tta: run_of(tmp_path, Slanted(), {"name": "coarse_first"}, tta=tta) for tta in (None, "flips")}
    megapixels = 150 * 170 / 1e6
    done = {tta: run.predict(path, tmp_path / str(tta), budget=2600) for tta, run in runs.items()}
    assert done["flips"]["passes"] <= 2600 * megapixels * 1.6  # one wide look everywhere is the least
    assert done[None]["passes"] > 0


def test_cascades_refuse_it(tmp_path):
    tree = toy_config(tmp_path)
    tree["foveation"]["estimator"] = {"name": "cascade"}
    tree["inference"]["tta"] = "flips"
    with pytest.raises(ConfigError, match="does not work with cascades"):
        RunConfig.parse(tree)
