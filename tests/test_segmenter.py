import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foveate.errors import GeometryError, NetworkError
from foveate.foveation.estimator import Draw, shares_of
from foveate.foveation.estimators import Ensemble, FixedScale, GumbelSoftmax, Mixture
from foveate.networks.cascade import NetworkPerScale
from foveate.networks.parts import DeepSupervision
from foveate.paper import SoftExpectation, StraightThroughArgmax
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter

SCALES = ScaleSet(16, (16, 32, 64))


def segmenter(estimator, network=None, scales=SCALES, **options):
    return FoveatedSegmenter(network or nn.Conv2d(3, 4, 3, padding=1), scales, estimator=estimator, **options)


def over_targets(model, patches, weights):
    return model.over_supports(model.predict_windows(patches, weights), weights, model.scales.target)


@given(st.integers(1, 70), st.integers(1, 70))
def test_an_identity_network_gives_the_image_back(height, width):
    image = torch.rand(2, 3, height, width)
    model = segmenter(FixedScale(index=0), nn.Identity()).eval()
    assert torch.equal(model(image), image)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_aligned_prediction_puts_a_slope_where_it_is(index):
    """An identity network on a linear image: right at every scale, away from the reflected border."""
    slope = torch.arange(160.0).view(1, 1, 1, -1).expand(1, 3, 96, -1)
    result = segmenter(FixedScale(index=index), nn.Identity()).eval()(slope)
    torch.testing.assert_close(result[..., 64:96], slope[..., 64:96])


def test_the_papers_alignment_does_not():
    slope = torch.arange(160.0).view(1, 1, 1, -1).expand(1, 3, 96, -1)
    result = segmenter(FixedScale(index=2), nn.Identity(), alignment="paper").eval()(slope)
    assert (result - slope)[..., 64:96].abs().max() > 10


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2), (torch.float64, 1e-5)])
@pytest.mark.parametrize("estimator", [SoftExpectation(), FixedScale(index=1)], ids=repr)
def test_weights_and_images_of_another_precision_give_the_same(dtype, near, estimator):
    model, image = segmenter(estimator, tell_scale=True).eval(), torch.rand(2, 3, 50, 41)
    expected = model(image)
    other = copy.deepcopy(model).to(dtype)
    for result in (other(image.to(dtype)), other(image), model(image.to(dtype))):
        torch.testing.assert_close(result.float(), expected, rtol=0, atol=near)


@pytest.mark.parametrize(
    "estimator",
    [SoftExpectation(), StraightThroughArgmax(), GumbelSoftmax(), GumbelSoftmax(name="gumbel_soft"), Mixture()],
    ids=repr,
)
def test_policy_and_network_learn_from_the_segmentation_loss(estimator):
    model = segmenter(estimator)
    loss = F.cross_entropy(model(torch.rand(2, 3, 50, 41)), torch.randint(0, 4, (2, 50, 41)))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_fixed_scale_leaves_the_policy_alone():
    model = segmenter(FixedScale(index=1))
    model(torch.rand(1, 3, 20, 20)).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in model.policy.parameters())


def test_a_batch_of_one_scale_or_of_several_gives_what_each_row_gives_alone():
    model, output = segmenter(FixedScale()), torch.rand(4, 4, 16, 16)
    for chosen in ([0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 1, 0]):
        weights = F.one_hot(torch.tensor(chosen), 3).float()
        alone = [model.over_supports(output[i : i + 1], weights[i : i + 1], 16) for i in range(4)]
        torch.testing.assert_close(model.over_supports(output, weights, 16), torch.cat(alone), atol=0, rtol=0)
    weights = F.one_hot(torch.zeros(4, dtype=torch.long), 3).float()
    assert torch.equal(model.over_supports(output, weights, 16), output)


@pytest.mark.parametrize("estimator", [SoftExpectation(), GumbelSoftmax()], ids=repr)
def test_evaluation_is_deterministic(estimator):
    model, image = segmenter(estimator).eval(), torch.rand(1, 3, 45, 77)
    assert torch.equal(model(image), model(image))


def test_one_hot_weights_read_only_the_chosen_view():
    model = segmenter(StraightThroughArgmax()).eval()
    patches = torch.rand(5, 3, 3, 16, 16)
    logits = torch.eye(3)[torch.tensor([0, 2, 1, 2, 0])] * 5
    mixed = model.forward_locations(logits, patches).logits
    for i, scale in enumerate([0, 2, 1, 2, 0]):
        alone = segmenter(FixedScale(index=scale), model.network).eval()
        torch.testing.assert_close(
            mixed[i], alone.forward_locations(logits[i : i + 1], patches[i : i + 1]).logits[0], atol=1e-6, rtol=1e-5
        )


def test_soft_expectation_is_the_weighted_mean_for_a_linear_network():
    """For an identity network, mixing inputs and reading the mix at each view is the double sum over scales."""
    model = segmenter(SoftExpectation(), nn.Identity()).eval()
    patches, logits = torch.rand(1, 3, 3, 16, 16), torch.tensor([[0.3, -0.2, 1.0]])
    p = logits.softmax(-1)[0]
    mixed = sum(p[s] * patches[:, s] for s in range(3))
    one_hot = torch.eye(3)
    expected = sum(p[s] * over_targets(model, mixed, one_hot[s : s + 1]) for s in range(3))
    torch.testing.assert_close(model.forward_locations(logits, patches).logits, expected)


def test_a_seeded_draw_repeats():
    model, image = segmenter(GumbelSoftmax()), torch.rand(1, 3, 60, 60)
    one, two = (model(image, Draw(0.5, torch.Generator().manual_seed(4))) for _ in range(2))
    assert torch.equal(one, two)


def test_networks_of_a_coarser_output_are_accepted():
    network = nn.Conv2d(3, 2, 4, stride=4)
    assert segmenter(SoftExpectation(), network)(torch.rand(1, 3, 33, 20)).shape == (1, 2, 33, 20)


def test_mixture_is_the_probability_weighted_mixture_of_aligned_predictions():
    """In training every scale is passed alone; the mixture of their probabilities is computed the slow way."""
    model = segmenter(Mixture())
    patches, logits = torch.rand(4, 3, 3, 16, 16), torch.randn(4, 3)
    output = model.forward_locations(logits, patches)
    p, expected = logits.softmax(-1), 0
    for scale in range(3):
        alone = over_targets(model, patches[:, scale], torch.eye(3)[scale].expand(4, -1)).softmax(1)
        expected = expected + p[:, scale, None, None, None] * alone
        torch.testing.assert_close(output.own_logits[:, scale], model.network(patches[:, scale]))
    torch.testing.assert_close(output.logits.exp(), expected)
    torch.testing.assert_close(output.logits.exp().sum(1), torch.ones(4, 16, 16))


def test_mixture_passes_one_scale_at_inference():
    model = segmenter(Mixture()).eval()
    patches, logits = torch.rand(2, 3, 3, 16, 16), torch.tensor([[0.0, 2, 1], [3, 0, 1]])
    output = model.forward_locations(logits, patches)
    assert output.scale_weights.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert output.own_logits.shape == (2, 0)


@pytest.mark.parametrize(("top", "passed"), [(1, 1), (2, 2), (None, 3)])
def test_as_many_scales_as_asked_are_mixed_at_inference(top, passed):
    model = segmenter(Mixture(top=top)).eval()
    patches, logits = torch.rand(2, 3, 3, 16, 16), torch.tensor([[0.0, 2, 1], [3, 0, 1]])
    output = model.forward_locations(logits, patches)
    weights = shares_of(model.estimator.looks(logits))
    assert ((weights > 0).sum(1) == passed).all()
    each = [over_targets(model, patches[:, s], torch.eye(3)[s].expand(2, -1)) for s in range(3)]
    mean = (torch.stack(each, dim=1).softmax(2) * weights[:, :, None, None, None]).sum(1)
    torch.testing.assert_close(output.logits.softmax(1), mean)


@pytest.mark.parametrize("image", [torch.rand(3, 20, 20), torch.rand(1, 4, 20, 20)])
def test_other_shapes_are_refused(image):
    with pytest.raises(GeometryError, match=r"expected an image \(B, 3, H, W\)"):
        segmenter(SoftExpectation())(image)


@pytest.mark.parametrize("shape", [(0, 3, 20, 20), (1, 3, 0, 20), (1, 3, 20, 0)])
def test_an_image_without_pixels_is_refused(shape):
    with pytest.raises(GeometryError, match="has no pixels"):
        segmenter(SoftExpectation())(torch.rand(shape))


def test_other_channels_and_whole_numbers_are_refused_with_the_remedy():
    with pytest.raises(GeometryError, match="for 4 channels set in_channels=4"):
        segmenter(SoftExpectation())(torch.rand(1, 4, 20, 20))
    with pytest.raises(GeometryError, match=r"got torch\.uint8; for example image / 255"):
        segmenter(SoftExpectation())(torch.zeros(1, 3, 20, 20, dtype=torch.uint8))


class Wrapped(nn.Module):
    def forward(self, x):
        return {"masks": x}


def test_a_network_that_returns_no_tensor_is_named():
    with pytest.raises(NetworkError, match="got dict; wrap it"):
        segmenter(SoftExpectation(), Wrapped())(torch.rand(1, 3, 20, 20))


@pytest.mark.parametrize(("alignment", "learns_it"), [("aligned", True), ("paper", False)])
def test_a_wide_view_learns_where_things_are_only_if_output_and_target_match(alignment, learns_it):
    """Blobs as large as a target: taken for the target whatever the width, a wide patch's output is elsewhere."""
    torch.manual_seed(0)
    blobs = F.interpolate(torch.rand(1, 1, 24, 24), 384, mode="bilinear", align_corners=False) > 0.5
    image = blobs.float().expand(1, 3, -1, -1) + 0.1 * torch.randn(1, 3, 384, 384)
    model = segmenter(FixedScale(index=2), nn.Conv2d(3, 2, 5, padding=2), alignment=alignment)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(image), blobs[:, 0].long()).backward()
        optimizer.step()
    right = (model.eval()(image).argmax(1) == blobs[:, 0]).float().mean()
    assert (right > 0.9) if learns_it else (right < 0.8)


def test_an_ensemble_averages_the_probabilities_of_its_members():
    networks = [nn.Conv2d(3, 4, 3, padding=1) for _ in SCALES.fields_of_view]
    image = torch.rand(2, 3, 50, 41)
    joined = segmenter(Ensemble(), NetworkPerScale(networks)).eval()(image)
    alone = [segmenter(FixedScale(index=i), network).eval()(image) for i, network in enumerate(networks)]
    expected = torch.stack([logits.softmax(1) for logits in alone]).mean(0)
    torch.testing.assert_close(joined.softmax(1), expected)


def test_patches_of_several_scales_at_once_go_to_their_own_networks():
    networks = [nn.Conv2d(3, 4, 1) for _ in range(3)]
    patches, scales = torch.rand(6, 3, 8, 8), torch.tensor([2, 0, 0, 1, 2, 1])
    together = NetworkPerScale(networks)(patches, torch.eye(3)[scales])
    for patch, scale, logits in zip(patches, scales, together, strict=True):
        torch.testing.assert_close(logits, networks[scale](patch[None])[0])


@pytest.mark.parametrize("estimator", [SoftExpectation(), Mixture(), FixedScale(index=1)], ids=repr)
def test_an_auxiliary_head_is_read_like_the_main_one(estimator):
    class Twice(nn.Conv2d):
        def forward(self, x):
            logits = super().forward(x)
            return DeepSupervision(logits, logits) if self.training else logits

    model = segmenter(estimator, Twice(3, 4, 3, padding=1))
    read = estimator.reads(3).scales
    output = model.forward_locations(torch.randn(5, 3), torch.rand(5, len(read), 3, 16, 16))
    assert len(output.auxiliary) == 1
    torch.testing.assert_close(output.auxiliary[0], output.logits)
    assert model.eval()(torch.rand(1, 3, 20, 20)).shape == (1, 4, 20, 20)


def test_a_fixed_scale_can_learn_from_its_whole_window():
    model = segmenter(FixedScale(index=2, own_window=0.5))
    output = model.forward_locations(torch.zeros(4, 3), torch.rand(4, 1, 3, 16, 16))
    assert output.own_logits.shape == (4, 1, 4, 16, 16)
    assert segmenter(FixedScale(index=2)).forward_locations(
        torch.zeros(4, 3), torch.rand(4, 1, 3, 16, 16)
    ).own_logits.shape == (4, 0)


def test_a_network_can_be_told_the_scale_and_is_not_changed_by_it_at_first():
    image, network = torch.rand(1, 3, 50, 41), nn.Conv2d(3, 4, 3, padding=1)
    plain, told = (segmenter(StraightThroughArgmax(), network, tell_scale=tell).eval() for tell in (False, True))
    told.policy.load_state_dict(plain.policy.state_dict())
    assert torch.equal(told(image), plain(image))
    with torch.no_grad():
        told.scale_embedding.offset[1] = 5.0
    patches, logits = torch.rand(3, 3, 3, 16, 16), torch.eye(3) * 5
    before, after = (model.forward_locations(logits, patches).logits for model in (plain, told))
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


def test_what_is_told_is_learned():
    model = segmenter(Mixture(), tell_scale=True)
    F.cross_entropy(model(torch.rand(2, 3, 50, 41)), torch.randint(0, 4, (2, 50, 41))).backward()
    assert model.scale_embedding.gain.grad.abs().sum() > 0
    assert segmenter(FixedScale(index=1), tell_scale=True).scale_embedding is None
