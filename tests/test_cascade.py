import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveate import CascadeSegmenter
from foveate.errors import ConfigError, NetworkError
from foveate.foveation.estimator import Draw
from foveate.foveation.estimators import Cascade
from foveate.networks.build import build_network
from foveate.networks.cascade import Context, _Entrance
from foveate.segmenter import Places

OPTIONS = {"weights": None, "classes": 3}
FPN = {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 64}


def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))


NETWORKS = {
    "any": plain,
    "fpn": lambda: build_network("fpn", "resnet18", **OPTIONS, **FPN),
    "unet": lambda: build_network("unet", "tf_efficientnet_lite0", **OPTIONS),
    "segformer": lambda: build_network("segformer", "resnet18", **OPTIONS),
    "c1": lambda: build_network("c1_deepsup", "resnet18dilated", **OPTIONS),
    "one feature map": lambda: build_network("c1", "u_net", **OPTIONS, width=16),
}


def segmenter(name="fpn", looks=(128, 32), seed=0, **options):
    torch.manual_seed(seed)
    return CascadeSegmenter(NETWORKS[name](), 32, looks, cascade=Cascade(**options))


def some_context(model, count=2, looks=2):
    handed = model.look(torch.rand(count, 3, 32, 32), looks - 1).handed
    return Context(handed, torch.rand(count, 2) * 0.75, 0.25)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [True, False])
def test_at_first_a_closer_look_is_what_it_would_be_alone(name, share):
    """Every kind of network; the shared one too, and to the bit."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    alone = copy.deepcopy(network).eval()
    model = CascadeSegmenter(network, 32, (128, 32), cascade=Cascade(share=share)).eval()
    patches = torch.rand(2, 3, 32, 32)
    closer = model.look(patches, 0, some_context(model)).logits
    assert torch.equal(closer, model.look(patches, 0).logits)
    torch.testing.assert_close(closer, alone(patches))


@pytest.mark.parametrize(
    ("name", "context"),
    [*((name, "auto") for name in NETWORKS), ("fpn", "input"), *((name, "logits") for name in ("any", "fpn", "c1"))],
)
def test_every_look_learns_from_the_closest_and_context_soon_counts(name, context):
    model = segmenter(name, context=context, drop_context=0.0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    image, label = torch.rand(2, 3, 128, 128), torch.randint(0, 3, (2, 128, 128))
    for _ in range(2):
        optimizer.zero_grad()
        handed = []
        hook = model.network.register_forward_hook(lambda _m, _i, seen, to=handed: to.append(seen.handed))
        *_, closest = model.look_by_look(image)
        hook.remove()
        handed[0].retain_grad()
        F.cross_entropy(closest, label).backward()
        optimizer.step()
    assert handed[0].grad.abs().sum() > 0  # of the wide look, by the loss of the closest alone
    assert all(p.abs().sum() > 0 for p in model.network.entrances.parameters())
    model.eval()
    patches = torch.rand(2, 3, 32, 32)
    assert not torch.equal(model.look(patches, 0, some_context(model)).logits, model.look(patches, 0).logits)


@pytest.mark.parametrize("name", ["any", "fpn", "c1"])
def test_context_is_added_to_the_logits(name):
    """With weights of one on what a wide look of constant probabilities hands on, their share of the logits' size."""
    model = segmenter(name, context="logits", handed="probabilities").eval()
    convolution = model.network.entrances[0].convolutions["0"]
    assert (convolution.in_channels, convolution.out_channels) == (3, 3)
    nn.init.ones_(convolution.weight)
    patches, corners = torch.rand(2, 3, 32, 32), torch.zeros(2, 2)
    alone = model.look(patches, 0).logits
    context = Context(torch.full((2, 3, 4, 4), 1 / 3), corners, 0.25)
    size = alone.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(model.look(patches, 0, context).logits, alone + size)


def test_context_enters_features_from_a_stride_of_eight_on():
    entrance = segmenter("unet").network.entrances[0].convolutions
    assert [convolution.out_channels for convolution in entrance.values()] == [40, 112, 320]


@pytest.mark.parametrize(
    ("handed", "channels", "side"), [("both", 64 + 3, 8), ("map", 64, 8), ("probabilities", 3, 16)]
)
def test_what_a_look_hands_on(handed, channels, side):
    model = segmenter("fpn", handed=handed).eval()
    found = model.look(torch.rand(2, 3, 32, 32), 1)
    assert found.handed.shape == (2, channels, side, side)
    if handed != "map":
        torch.testing.assert_close(found.handed[:, -3:], F.avg_pool2d(found.logits.softmax(dim=1), 32 // side))


def test_shared_looks_have_one_set_of_weights_and_statistics_of_their_own():
    close, wide = segmenter("fpn", share=True).network.networks
    assert close.encoder.conv1.weight is wide.encoder.conv1.weight
    assert close.encoder.bn1.weight is not wide.encoder.bn1.weight
    close, wide = segmenter("fpn", share=False).network.networks
    assert close.encoder.conv1.weight is not wide.encoder.conv1.weight


def test_a_saved_cascade_is_the_same_when_it_is_loaded():
    model, other = segmenter("fpn", seed=0).eval(), segmenter("fpn", seed=1).eval()
    other.load_state_dict(model.state_dict())
    image = torch.rand(1, 3, 100, 90)
    assert torch.equal(model(image), other(image))


@pytest.mark.parametrize("size", [(128, 128), (130, 40), (20, 300), (5, 7)])
@pytest.mark.parametrize("looks", [(128, 32), (64, 32), (128, 64, 32)])
def test_whole_images_come_back_at_their_size_as_probabilities(size, looks):
    model = segmenter("any", looks).eval()
    image = torch.rand(2, 3, *size)
    logits = model(image)
    assert logits.shape == (2, 3, *size)
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(2, *size))
    torch.testing.assert_close(model(image[1:]), logits[1:])


def test_a_linear_image_comes_back_from_every_look():
    """An identity network: each look puts the slope where it is, at its own resolution."""
    slope = torch.arange(256.0).view(1, 1, 1, -1).expand(1, 3, 128, -1) / 256
    model = CascadeSegmenter(nn.Identity(), 32, (128, 64, 32)).eval()
    for look in model.look_by_look(slope):
        torch.testing.assert_close(look[..., 8:120], slope[..., 8:120], rtol=0, atol=2 / 256)  # at the rims of tiles


def test_tiles_get_the_context_of_their_own_place():
    """The context is added to the input with a weight of one: with a wide look that copies the image, it doubles."""

    class Copy(nn.Module):
        def forward(self, image):
            return image

    model = CascadeSegmenter(Copy(), 16, (64, 16), cascade=Cascade(handed="probabilities")).eval()
    with torch.no_grad():
        model.network.entrances[0].convolutions["0"].weight.copy_(torch.eye(3)[..., None, None])
    image = torch.rand(2, 3, 100, 130)
    wide, close = model.look_by_look(image)
    size = F.avg_pool2d(image.square().mean(dim=1, keepdim=True), 16).sqrt()  # context is measured by its patch
    context = (close - image)[..., :96, :128] / size.repeat_interleave(16, 2).repeat_interleave(16, 3)
    expected = F.avg_pool2d(wide.softmax(dim=1)[..., :96, :128], 8)
    torch.testing.assert_close(F.avg_pool2d(context, 8), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_context_counts_as_much_whatever_the_size_of_features(factor):
    entrance = _Entrance(3, [(0, 5)])
    nn.init.normal_(entrance.convolutions["0"].weight)
    features, context = torch.rand(2, 5, 4, 4), Context(torch.rand(2, 3, 8, 8), torch.zeros(2, 2), 0.5)
    one, other = entrance([features], context)[0], entrance([factor * features], context)[0]
    torch.testing.assert_close(other / factor, one)
    gained = _Entrance(3, [(0, 5)], gain=4.0)
    gained.load_state_dict(entrance.state_dict())
    torch.testing.assert_close(gained([features], context)[0] - features, 4 * (one - features))


def test_nested_windows_see_what_a_whole_image_does():
    """A location that is one tile of an image, and its closer windows: as in the image, whatever their order."""
    model = segmenter("unet", (128, 64, 32), drop_context=0.9)
    for parameter in model.network.entrances.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.eval()
    image = torch.rand(1, 3, 128, 128)
    corners = {1: [(64, 0), (0, 64)], 0: [(96, 32), (0, 64)]}
    windows = [(2, 0, 0)] + [(scale, *corner) for scale in (1, 0) for corner in corners[scale]]
    patches = [
        F.interpolate(image[..., t : t + 32 * 2**s, k : k + 32 * 2**s], size=32, mode="area") for s, t, k in windows
    ]
    nesting = torch.tensor([[-1, 0, 0, 0], [0, 64, 0, 64], [0, 0, 64, 64], [1, 32, 32, 32], [2, 0, 0, 32]])
    scales = torch.tensor([[s for s, *_ in windows]])
    with torch.no_grad():
        output = model.forward_places(Places(torch.stack(patches, dim=1), scales, nesting[None], lambda: image))
        whole = model.look_by_look(image)
        fused = model(image)
    torch.testing.assert_close(output.own_logits[0, 3], whole[2][0, :, 96:, 32:64])
    torch.testing.assert_close(output.own_logits[0, 4], whole[2][0, :, :32, 64:96])
    torch.testing.assert_close(output.logits[0], fused[0, :, 96:, 32:64], rtol=0, atol=1e-4)


def test_dropped_context_is_a_function_of_the_generator():
    model = segmenter("any", drop_context=0.5).train()
    nn.init.ones_(model.network.entrances[0].convolutions["0"].weight)
    image = torch.rand(1, 3, 128, 128)
    draws = [Draw(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    one, same, other = (model.look_by_look(image, draw)[1] for draw in draws)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("looks", "says"),
    [((256,), "two looks"), ((64, 256), r"\[256, 64\]"), ((250, 64), r"\[256, 64\] would"), ((100, 50, 40), "would")],
)
def test_looks_that_do_not_nest_are_told_which_would(looks, says):
    with pytest.raises(ConfigError, match=says):
        CascadeSegmenter(plain(), 32, looks)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2), (torch.float64, 1e-5)])
@pytest.mark.parametrize("entrance", ["input", "logits"])
def test_looks_of_another_precision_say_what_those_of_float32_say(dtype, near, entrance):
    model = segmenter("any", context=entrance).eval()
    nn.init.ones_(model.network.entrances[0].convolutions["0"].weight)
    image = torch.rand(1, 3, 128, 128)
    others = copy.deepcopy(model).to(dtype).look_by_look(image.to(dtype))
    for other, one in zip(others, model.look_by_look(image), strict=True):
        torch.testing.assert_close(other.float(), one, rtol=0, atol=near)


def test_a_network_may_come_in_another_precision():
    model = CascadeSegmenter(plain().double(), 32, (64, 32))
    assert model(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_torchs_default_precision_does_not_matter():
    image, model = torch.rand(1, 3, 128, 128), segmenter("any").eval()
    nn.init.ones_(model.network.entrances[0].convolutions["0"].weight)
    expected = model(image)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(model(image), expected, check_dtype=False)
        F.cross_entropy(segmenter("any")(image), torch.zeros(1, 128, 128, dtype=torch.long)).backward()
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_network_without_features_is_told_what_is_possible():
    with pytest.raises(NetworkError, match="context: input"):
        CascadeSegmenter(plain(), 32, (64, 32), cascade=Cascade(context="features"))
    with pytest.raises(NetworkError, match="does not take a patch"):
        CascadeSegmenter(nn.Conv2d(4, 3, 1), 32, (64, 32))


def test_the_classes_of_a_network_trained_alone_are_not_changed_by_wrapping_it():
    network = plain().train()
    before = copy.deepcopy(network.state_dict())
    CascadeSegmenter(network, 32, (64, 32))
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(torch.rand(2, 3, 32, 32))
