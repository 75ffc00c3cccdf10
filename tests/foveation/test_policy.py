import pytest
import timm
import torch

from foveate.errors import NetworkError
from foveate.foveation.policy import PolicyConfig, PolicyNetwork
from foveate.networks.dense_features import FirstStages, dense_features


@pytest.mark.parametrize(
    ("config", "margin"),
    [
        (PolicyConfig(), 3),
        (PolicyConfig(dilations=(1, 2, 4, 8)), 15),
        (PolicyConfig(hidden=5, normalisation="none"), 3),
    ],
)
def test_a_margin_in_gives_the_inside_out(config, margin):
    policy = PolicyNetwork(3, 4, config)
    assert policy.margin == margin
    assert policy(torch.rand(2, 3, 9 + 2 * margin, 5 + 2 * margin)).shape == (2, 4, 9, 5)


def test_the_default_is_the_papers_network():
    convolutions = [m for m in PolicyNetwork(3, 5).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (3, 40, (3, 3)),
        (40, 40, (3, 3)),
        (40, 5, (3, 3)),
    ]


@pytest.mark.parametrize("dilations", [(1, 1, 1), (1, 2, 4)])
def test_crops_decide_as_the_whole_overview_does(dilations):
    policy = PolicyNetwork(3, 3, PolicyConfig(dilations=dilations)).eval()
    m = policy.margin
    overview = torch.rand(1, 3, 20 + 2 * m, 20 + 2 * m)
    whole = policy(overview)
    for row, col in [(0, 0), (7, 13), (19, 19)]:
        crop = overview[..., row : row + 2 * m + 1, col : col + 2 * m + 1]
        torch.testing.assert_close(policy(crop)[..., 0, 0], whole[..., row, col])


def test_the_receptive_field_ends_at_the_margin():
    policy = PolicyNetwork(1, 2).eval()
    overview = torch.rand(1, 1, 27, 27, requires_grad=True)
    policy(overview)[0, 0, 10, 10].backward()
    seen = overview.grad[0, 0] != 0
    assert seen.any(dim=0).nonzero()[[0, -1], 0].tolist() == [10, 16]


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18", "regnetx_002"])
def test_an_encoder_reads_the_overview_of_crops_as_of_the_whole(encoder):
    policy = PolicyNetwork(4, 3, PolicyConfig(), dense_features(encoder, in_channels=4, weights=None)).train()
    assert not any(module.training for module in policy.features.modules())
    policy.layers.eval()
    m = policy.margin
    overview = torch.rand(1, 4, 9 + 2 * m, 9 + 2 * m)
    whole = policy(overview)
    assert whole.shape == (1, 3, 9, 9)
    assert whole.std(dim=(2, 3)).min() > 0
    for row, col in [(0, 0), (3, 5), (8, 8)]:
        crop = overview[..., row : row + 2 * m + 1, col : col + 2 * m + 1]
        torch.testing.assert_close(policy(crop)[..., 0, 0], whole[..., row, col])


def test_dense_features_are_the_encoders_own_at_its_stride():
    torch.manual_seed(0)
    features = dense_features("resnet18", weights=None)
    strided = FirstStages(timm.create_model("resnet18")).eval()
    strided.load_state_dict(features.stages.state_dict())
    image, m = torch.rand(1, 3, 96, 96), features.margin
    # Its grid begins at the first pixel, and away from the border zeros are not seen.
    expected = strided(image)[..., 8:16, 8:16]
    torch.testing.assert_close(features(image)[..., 32 - m : 64 - m : 4, 32 - m : 64 - m : 4], expected)


@pytest.mark.parametrize("encoder", ["efficientnet_b0", "convnext_tiny", "resnet1"])
def test_an_encoder_that_does_not_suit_is_refused(encoder):
    with pytest.raises(NetworkError, match="resnet18"):
        dense_features(encoder, weights=None)
