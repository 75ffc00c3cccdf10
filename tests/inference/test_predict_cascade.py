"""A cascade's prediction from files: level by level, whatever the blocks, and as in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from predict_toys import CPU, PLAIN, toy_pixels
from torch import nn

from foveate.cascade import CascadeSegmenter
from foveate.data.area import Area, Polygons
from foveate.data.readers.array import ArrayReader
from foveate.errors import ConfigError
from foveate.foveation.estimators import Cascade
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.memory import MemoryModel
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.runner import batches_at_once
from foveate.inference.source import PixelSource
from foveate.networks.build import build_network

PIXELS = toy_pixels()
UNET = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def cascade(looks=(64, 16), share=True, seed=0):
    """A network whose context counts, as after some training."""
    torch.manual_seed(seed)
    network = build_network("unet", "resnet18", classes=4, weights=None, **UNET)
    model = CascadeSegmenter(network, 16, looks, cascade=Cascade(share=share), overview_downsample=8)
    for weight in model.network.entrances.parameters():
        nn.init.normal_(weight, std=0.3)
    return ready_to_predict(model, CPU)


def predicted(model, pixels=PIXELS, area=None, whole=False, **options):
    """Log-probabilities of the whole image, passes by block, and the maps of passes summed by look."""
    source = PixelSource(ArrayReader(pixels), [0, 1, 2], PLAIN, CPU)
    options |= {"looks": [[view, 1] for view in model.views_passed]} if whole else {}
    config = InferenceConfig.parse({"block_size": 64, "batch_size": 4, **options})
    whole, passes, made = torch.full((4, *pixels.shape[1:]), torch.nan), 0, 0.0
    for done in finished_blocks(model, source, config, area=area):
        if done.logits is not None:
            whole[:, *done.window.within(Window.of(source.size))] = done.logits
        passes += done.passes
        made = made if done.plan is None else made + done.plan.sum(dim=(1, 2)).numpy()
    return whole, passes, np.asarray(made).tolist()


@pytest.mark.parametrize("looks", [(64, 16), (64, 32, 16)])
@pytest.mark.parametrize("share", [True, False])
def test_files_are_predicted_as_images_in_memory(looks, share):
    model = cascade(looks, share)
    found, passes, _ = predicted(model, whole=True, budget="all")
    with torch.no_grad():
        expected = model(torch.from_numpy(PIXELS)[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert passes == 3 * 4 + 10 * 13 + (5 * 7 if len(looks) == 3 else 0)


@pytest.mark.parametrize(
    "options", [{"budget": 1500.0}, {"budget": "all"}, {"looks": [[64, 0.5], [16, 0.5]], "budget": 9000.0}]
)
def test_blocks_and_batches_change_no_bit(options):
    model = cascade()
    one = predicted(model, **options)
    other = predicted(model, **options, block_size=512)
    assert torch.equal(one[0], other[0])
    assert one[1:] == other[1:]
    torch.testing.assert_close(one[0], predicted(model, **options, batch_size=7)[0], rtol=1e-4, atol=1e-4)


def test_a_budget_is_kept_and_spent():
    model, megapixels = cascade(), PIXELS[0].size / 1e6
    for budget in (500.0, 2000.0, 4000.0):
        _, passes, (close, wide) = predicted(model, budget=budget, whole=True)
        assert passes == close + wide
        assert wide == 12
        assert budget * megapixels - 2 < passes <= budget * megapixels


def test_three_looks_go_down_level_by_level():
    """Every closest look lies in a middle one, or it would have no context."""
    model = cascade((64, 32, 16))
    source = PixelSource(ArrayReader(PIXELS), [0, 1, 2], PLAIN, CPU)
    config = InferenceConfig.parse(
        {"block_size": 64, "batch_size": 4, "looks": [[16, 1], [32, 1], [64, 1]], "budget": 2500.0}
    )
    seen = [0, 0]
    for done in finished_blocks(model, source, config):
        closest, middle = done.plan[0] > 0, done.plan[1] > 0
        around = middle[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert not (closest & ~around[: closest.shape[0], : closest.shape[1]]).any()
        seen = [seen[0] + int(closest.sum()), seen[1] + int(middle.sum())]
    assert min(seen) > 0


def test_a_margin_gives_the_context_of_the_wider_window():
    """A look whose windows reach beyond their support still lies in the wider one where that has a margin too."""
    whole = predicted(cascade(), budget="all", looks=[[64, 0.5], [16, 0.5]])[0]
    shifted = predicted(cascade(), PIXELS[:, 32:, 64:], budget="all", looks=[[64, 0.5], [16, 0.5]])[0]
    inside = (slice(None), slice(32, 64), slice(32, 96))  # away from the new border
    torch.testing.assert_close(whole[:, 64:96, 96:160], shifted[inside], rtol=1e-3, atol=1e-3)


def test_one_look_alone_is_a_fixed_view():
    model = cascade()
    found, passes, _ = predicted(model, looks=[[16, 1.0]], budget="all")
    assert passes == 10 * 13
    with torch.no_grad():
        alone = model.look(torch.from_numpy(PIXELS[:, 16:32, 32:48])[None], 0).logits[0]
    torch.testing.assert_close(found[:, 16:32, 32:48], alone.log_softmax(dim=0), rtol=1e-4, atol=1e-4)


def test_an_area_is_looked_at_alone():
    ring = np.array([[20, 10], [60, 30], [50, 40], [20, 10]], float)
    area = Area(Size(150, 203), Polygons([(ring,)]))
    model = cascade()
    everything = predicted(model, budget="all")[0]
    found, passes, _ = predicted(model, area=area, budget="all")
    inside = torch.from_numpy(area.inside(Window(0, 0, 150, 203)))
    assert torch.equal(found[:, inside], everything[:, inside])
    assert 0 < passes < 100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"planner": "per_target"}, "a cascade works level by level"),
        ({"looks": [[64, 0.25], [16, 1.0], [16, 0.5]]}, "one of each field of view"),
        ({"looks": [[64, 0.2], [16, 1.0]]}, "smaller kept parts"),
        ({"looks": [[128, 1.0]]}, r"the model's are \[16, 64\]"),
        ({"budget": 100.0}, r"at least 394\.09 passes per megapixel"),
    ],
)
def test_looks_that_cannot_be_are_told_what_can(options, says):
    with pytest.raises(ConfigError, match=says):
        predicted(cascade(), **options)


def test_the_bound_of_memory_holds_what_looks_hand_on():
    model, source = cascade((64, 32, 16)), PixelSource(ArrayReader(PIXELS), [0, 1, 2], PLAIN, CPU)
    found = MemoryModel.of(model, source, InferenceConfig(), 4)
    with torch.no_grad():
        handed = model.look(torch.zeros(1, 3, 16, 16), 2).handed
    assert found.handed == handed.nbytes
    without = replace(found, handed=0)
    supports = sum((64 // side + 2) ** 2 for side in (32, 64))
    assert found._stitching(64, 4) - without._stitching(64, 4) == (4 * batches_at_once(CPU) + supports) * handed.nbytes
    many = replace(found, handed=2**30)
    assert many.bound(64, 4).largest > found.bound(64, 4).largest + 2**30
