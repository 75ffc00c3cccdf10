"""What networks are made of, and checkpoints of encoders: names of another library, tensors in the same order."""

import pytest
import torch

from foveate.errors import NetworkError
from foveate.networks.build import build_network
from foveate.networks.parts import PolicyNetwork


def test_a_margin_in_gives_the_inside_out():
    policy = PolicyNetwork(3, 4)
    assert policy.margin == 3
    assert policy(torch.rand(2, 3, 9 + 2 * 3, 5 + 2 * 3)).shape == (2, 4, 9, 5)


def test_the_default_is_the_papers_network():
    convolutions = [m for m in PolicyNetwork(3, 5).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (3, 40, (3, 3)),
        (40, 40, (3, 3)),
        (40, 5, (3, 3)),
    ]


def test_crops_decide_as_the_whole_overview_does():
    policy = PolicyNetwork(3, 3).eval()
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


STEM = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def convolution(stored, name, inputs, outputs, kernel, norm):
    stored[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel)
    for part in BN:
        stored[f"{norm}.{part}"] = torch.zeros((), dtype=torch.long) if part == BN[-1] else torch.rand(outputs)


def original_resnet50():
    """The tensors of a ResNet-50 as in the original's code: a stem of three convolutions, 64, 64 and 128 wide."""
    stored = {}
    for place, (inputs, outputs) in enumerate(((3, 64), (64, 64), (64, 128))):
        convolution(stored, STEM[2 * place], inputs, outputs, 3, STEM[2 * place + 1])
    width = 128
    for stage, (blocks, planes) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            sizes = ((width, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1))
            for i, (inputs, outputs, kernel) in enumerate(sizes, start=1):
                convolution(stored, f"{name}.conv{i}", inputs, outputs, kernel, f"{name}.bn{i}")
            if not block:
                convolution(stored, f"{name}.downsample.0", width, 4 * planes, 1, f"{name}.downsample.1")
            width = 4 * planes
    return {**stored, "fc.weight": torch.rand(1000, 2048), "fc.bias": torch.rand(1000)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "resnet50-imagenet.pth"
    torch.save(original_resnet50(), path)
    return path


def test_a_resnet_of_the_original_fits_the_encoder_with_its_stem(file):
    stored = torch.load(file, weights_only=True)
    assert len([name for name in stored if not name.endswith(BN[-1])]) == 277
    encoder = build_network("upernet", "tu-resnet50s", classes=3, weights=str(file)).encoder.model
    assert torch.equal(encoder.conv1[0].weight, stored["conv1.weight"])
    assert torch.equal(encoder.conv1[6].weight, stored["conv3.weight"])
    assert torch.equal(encoder.bn1.running_var, stored["bn3.running_var"])
    assert torch.equal(encoder.layer4[2].conv3.weight, stored["layer4.2.conv3.weight"])
    assert torch.equal(encoder.layer2[0].downsample[1].bias, stored["layer2.0.downsample.1.bias"])


def test_it_does_not_fit_a_resnet_with_another_stem(file):
    with pytest.raises(NetworkError, match=r"277 tensors match the 265 of .* neither by name nor by order and shape"):
        build_network("upernet", "resnet50", classes=3, weights=str(file))


def test_the_papers_decoder_is_as_large_as_in_the_original():
    network = build_network("upernet", "resnet50", classes=6, decoder_channels=512, weights=None)
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(64.0e6, rel=0.001)
