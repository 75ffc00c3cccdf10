import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.errors import ConfigError
from foveate.foveation.estimators import CoarseFirst, FixedScale, Mixture
from foveate.geometry import CellGrid, Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.field import policy_weights
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import looks_of
from foveate.inference.source import PixelSource
from foveate.looks.pyramid import PyramidGrid, entropy_of_parts, price_for, share_inside
from foveate.patches import ScaleSet
from foveate.patches.extraction import Windows
from foveate.segmenter import FoveatedSegmenter

CPU = torch.device("cpu")
PLAIN = Normalisation(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SCALES = ScaleSet(16, (16, 32, 64))


def source(pixels):
    return PixelSource(ArrayReader(pixels), [0, 1, 2], PLAIN, CPU)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def segmenter(network=None, estimator=None, scales=SCALES):
    torch.manual_seed(1)
    network = network or nn.Conv2d(3, 4, 3, padding=1)
    model = FoveatedSegmenter(network, scales, estimator=estimator or Mixture(), overview_downsample=4)
    return ready_to_predict(model, CPU)


def all_views(keep, views=SCALES.fields_of_view):
    """Every view, of the narrowest a central share."""
    return [(view, 1.0 if k else keep) for k, view in enumerate(views)]


def predicted(model, pixels, keep=None, **options):
    """Log-probabilities of the whole image, and the passes they took."""
    options |= {"looks": all_views(keep, model.views_passed)} if keep else {}
    image, config = source(pixels), InferenceConfig(**{"planner": "pyramid", **options})
    whole, passes = None, 0
    for done in finished_blocks(model, image, config):
        whole = torch.zeros(len(done.logits), *pixels.shape[1:]) if whole is None else whole
        whole[:, *done.window.within(Window.of(image.size))] = done.logits
        passes += done.passes
    return whole, passes


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1.0, 0.75, 0.5]))
def test_the_supports_of_every_scale_cover_each_pixel_once(height, width, keep):
    looks = looks_of(InferenceConfig(looks=all_views(keep)), SCALES.fields_of_view)
    grid = PyramidGrid.of(Size(height, width), looks)
    for scale in range(3):
        count = np.zeros((height + 128, width + 128), int)
        tops, lefts, side = grid.inside(grid.roots, scale)
        for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
            count[top : top + side, left : left + side] += 1
        assert (count[:height, :width] == 1).all()
        assert side <= (keep if scale == 0 else 1) * SCALES.fields_of_view[scale]


def test_three_doubling_scales_cost_a_third_more_than_one():
    _, passes = predicted(segmenter(), noise(128, 192), keep=1.0, block_size=64)
    assert passes == 6 * (1 + 4 + 16)  # of 96 targets: 1.31 each


@settings(max_examples=15)
@given(
    st.sampled_from([(130, 97), (64, 64), (20, 150)]),
    st.sampled_from([16, 40, 64, 100]),
    st.sampled_from([1.0, 0.75]),
    st.sampled_from([None, "fixed", 2500.0]),
    st.sampled_from(["policy", (1.0, 2.0, 4.0)]),
)
def test_blocks_of_any_size_give_the_same_class_map(size, block, keep, budget, fusion):
    pixels, model = noise(*size), segmenter()
    options = {"keep": keep, "budget": budget, "fusion": fusion}
    whole, _ = predicted(model, pixels, block_size=4096, **options)
    parts, _ = predicted(model, pixels, block_size=block, **options)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert torch.equal(parts.argmax(0), whole.argmax(0))


def test_the_result_is_the_mixture_of_what_every_scale_says():
    """Pixel by pixel: the probabilities of each scale's own tiling, weighted by the policy's."""
    pixels, model = noise(96, 128), segmenter(estimator=Mixture(top=None))
    found, _ = predicted(model, pixels, keep=1.0)
    alone = []
    for scale in range(3):
        one = segmenter(model.network, FixedScale(index=0), ScaleSet(16, (SCALES.fields_of_view[scale],)))
        with torch.no_grad():
            alone.append(one(torch.from_numpy(pixels)[None])[0].softmax(0))
    field = _Field(model, pixels)
    weights = policy_weights(Window(0, 0, 96, 128), field.grid, field)
    expected = sum(w * p for w, p in zip(weights, alone, strict=True))
    torch.testing.assert_close(found.exp(), expected, atol=1e-5, rtol=1e-4)


class _Field:
    """The policy's logits of an image held in memory."""

    def __init__(self, model, pixels):
        self.grid = CellGrid(Size(*pixels.shape[1:]), model.overview_downsample)
        with torch.no_grad():
            self.logits = model._whole_logits(torch.from_numpy(pixels)[None])[0]

    def logits_at(self, rows, cols):
        return self.logits[:, rows // self.grid.cell, cols // self.grid.cell].T


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30))
def test_the_weights_of_a_pixel_do_not_depend_on_the_block(top, left, height, width):
    model, pixels = segmenter(), noise(71, 73)
    field = _Field(model, pixels)
    whole = policy_weights(Window(0, 0, 71, 73), field.grid, field)
    part = policy_weights(Window(top, left, height, width), field.grid, field)
    torch.testing.assert_close(part, whole[:, top : top + height, left : left + width])
    torch.testing.assert_close(part.sum(0), torch.ones(height, width))
    cell = field.logits.softmax(0)[:, 3, 5]
    torch.testing.assert_close((whole[:, 13, 21] + whole[:, 14, 22]) / 2, cell, atol=0.1, rtol=0)


@pytest.mark.parametrize("budget", [600.0, 1000.0, 2000.0, "fixed", 5000.0])
@pytest.mark.parametrize("keep", [1.0, 0.75])
def test_a_budget_is_kept_and_spent(budget, keep):
    pixels = noise(300, 420)
    _, passes = predicted(segmenter(), pixels, budget=budget, keep=keep)
    allowed = 19 * 27 if budget == "fixed" else budget * 300 * 420 / 1e6
    everything = predicted(segmenter(), pixels, keep=keep)[1]
    assert passes <= allowed + 1
    assert passes >= 0.97 * min(allowed, everything) - 1


class _SureOnTheRight(nn.Module):
    """Knows the class of bright pixels, and nothing of dark ones."""

    def forward(self, x):
        bright = (x.mean(1, keepdim=True) > 0.5) * 20.0
        return torch.cat([bright, torch.zeros_like(bright)], dim=1)


def test_closer_looks_go_where_the_wide_look_knows_nothing():
    pixels = np.zeros((3, 256, 256), np.float32)
    pixels[:, :, 128:] = 1
    looked = []

    class Watching(_SureOnTheRight):
        def forward(self, x):
            looked.extend(float(patch.mean()) for patch in x)
            return super().forward(x)

    model = segmenter(Watching())
    _, passes = predicted(model, pixels, budget=1000.0, keep=1.0, batch_size=1)
    wide = 16
    assert wide < passes <= 65
    assert sum(value > 0.5 for value in looked[:wide]) == 8
    assert max(looked[wide:]) < 0.5


def test_entropy_of_parts_is_where_the_uncertainty_is():
    logits = torch.zeros(1, 3, 32, 32)
    logits[:, 0, :, :16] = 50
    parts = entropy_of_parts(logits, 1.0, 4)
    assert parts.shape == (1, 16)
    by_column = parts.view(4, 4)
    torch.testing.assert_close(by_column[:, :2], torch.zeros(4, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(by_column[:, 2:], torch.full((4, 2), float(np.log(3))))
    kept = entropy_of_parts(logits, 0.5, 2).view(2, 2)
    torch.testing.assert_close(kept[:, 1], torch.full((2,), float(np.log(3))))


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40), st.integers(0, 50))
def test_the_price_buys_at_most_what_was_allowed(gains, allowed):
    values = torch.tensor(gains, dtype=torch.float64)
    price = price_for(values, allowed)
    bought = int((values > price).sum())
    assert bought <= allowed or allowed >= len(gains)
    if len(set(gains)) == len(gains):
        assert bought == min(allowed, len(gains))


def test_a_survey_of_a_part_of_the_image_meets_the_budget_nearly(monkeypatch):
    monkeypatch.setattr("foveate.inference.predictor.SURVEYED", 9)
    pixels = noise(512, 512)
    pixels[:, :, 200:] *= 0.1
    _, passes = predicted(segmenter(), pixels, budget=1500.0, keep=1.0)
    assert 0.75 * 393 < passes < 1.25 * 393


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_one_fixed_scale_tiles_the_image_with_its_own_windows(keep):
    pixels = noise(128, 192)
    found, passes = predicted(segmenter(estimator=FixedScale(index=1)), pixels, keep=keep)
    assert passes == 24 / keep**2
    assert found.shape == (4, 128, 192)


def test_a_survey_too_large_to_keep_changes_only_the_cost(monkeypatch):
    pixels, model = noise(200, 260), segmenter()
    kept, passes = predicted(model, pixels, budget=2000.0)
    monkeypatch.setattr("foveate.inference.passes._KEPT_BYTES", 0)
    again, more = predicted(model, pixels, budget=2000.0)
    torch.testing.assert_close(again, kept, atol=1e-5, rtol=0)
    assert more == passes + 4 * 5


def test_a_budget_below_the_least_says_the_least():
    with pytest.raises(
        ConfigError, match=r"a budget of 1 passes .* below 4, the cost .* at least 244\.15 passes per megapixel"
    ):
        predicted(segmenter(), noise(128, 128), budget=100.0, keep=1.0)


def test_supports_are_multiples_of_each_other_whatever_the_fields_of_view():
    grid = PyramidGrid.of(Size(64, 64), looks_of(InferenceConfig(looks=all_views(1.0, (16, 24, 50))), (16, 24, 50)))
    assert grid.sides == (16, 16, 48)
    found, _ = predicted(segmenter(scales=ScaleSet(16, (16, 24))), noise(64, 64), keep=1.0)
    assert torch.isfinite(found).all()


def test_looks_choose_fields_of_view_and_margins():
    """Whole windows of 64 everywhere; of 16 whole and, four times as many, their central halves: narrowest last."""
    looks = ((64, 1.0), (16, 0.5), (16, 1.0))
    _, passes = predicted(segmenter(), noise(128, 192), looks=looks)
    assert passes == 6 * (1 + 16 + 64)
    assert looks_of(InferenceConfig(looks=looks), (16, 32, 64)) == ((16, 0.5), (16, 1.0), (64, 1.0))


def test_one_view_may_cost_one_pass_a_target_and_spends_more_on_margins():
    model, pixels = segmenter(estimator=FixedScale(index=0)), noise(48, 80)
    found, passes = predicted(model, pixels, budget="fixed")
    alone, windows = predicted(model, pixels, looks=((16, 1.0),))
    assert passes == windows == 3 * 5
    assert torch.equal(found.argmax(0), alone.argmax(0))
    assert [predicted(model, pixels, budget=budget)[1] for budget in ("200%", "all")] == [30, 15 + 60]


def test_the_surest_places_of_all_are_looked_at_with_a_margin():
    """Of two uncertain places, whole windows come first; what budget is left goes to windows that overlap."""
    looks = ((16, 0.5), (16, 1.0), (64, 1.0))
    model, pixels = segmenter(), noise(256, 256)
    costs = [predicted(model, pixels, looks=looks, budget=budget)[1] for budget in (500.0, 3000.0, 20000.0)]
    assert costs[0] < 33 and 33 < costs[1] <= 197 and costs[2] <= 16 * (1 + 16 + 64)


def test_a_look_at_a_field_of_view_of_no_scale_is_refused():
    with pytest.raises(ConfigError, match=r"names a field of view of 20; the model's are \[16, 32, 64\]"):
        predicted(segmenter(), noise(64, 64), looks=((20, 1.0),))


def test_who_looked_closest_is_believed_most_where_no_policy_says():
    """Coarse first uses the pyramid unasked; a closer look counts ten times as much as a wider one."""
    pixels, model = noise(64, 64), segmenter(estimator=CoarseFirst())
    found, _ = predicted(model, pixels, planner=None, looks=((16, 1.0), (64, 1.0)), budget="all")
    alone = []
    for view in (16, 64):
        one = segmenter(model.network, FixedScale(index=0), ScaleSet(16, (view,)))
        with torch.no_grad():
            alone.append(one(torch.from_numpy(pixels)[None])[0].softmax(0))
    torch.testing.assert_close(found.exp(), (10 * alone[0] + alone[1]) / 11, atol=1e-5, rtol=1e-4)


def test_predictions_are_mixed_per_target_as_in_training():
    pixels = noise(48, 64)
    model = segmenter(nn.Conv2d(3, 4, 3, padding=1), Mixture(top=None))
    found, passes = predicted(model, pixels, planner="per_target", overlap=0)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)[None])[0]
    torch.testing.assert_close(found.softmax(0), expected.softmax(0), atol=1e-4, rtol=1e-4)
    assert passes == 3 * 3 * 4


def test_a_weight_is_needed_for_every_scale():
    with pytest.raises(ConfigError, match="gives 2 weights"):
        predicted(segmenter(), noise(64, 64), fusion=(1.0, 2.0))


def test_shares_inside_an_area():
    windows = Windows(torch.tensor([0, 6, 20]), torch.tensor([0, 0, 0]), 8)
    assert share_inside(windows, Window(0, 0, 10, 4)).tolist() == [0.5, 0.25, 0]


def test_given_looks_are_used_whatever_the_method_would_do_or_refused():
    pixels = noise(64, 64)
    one = segmenter(estimator=FixedScale(index=1))
    assert predicted(one, pixels, planner=None)[1] == 25  # a pass for every target of 16 pixels, which overlap
    assert predicted(one, pixels, planner=None, looks=[[32, 1.0]])[1] == 4
    with pytest.raises(ConfigError, match="looks needs the planner pyramid"):
        predicted(one, pixels, planner="per_target", looks=[[32, 1.0]])
