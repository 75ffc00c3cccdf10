"""Every pair of the original's menu builds, trains a step on a batch of one, and predicts."""

import re

import pytest
import torch
from torch import nn

from foveate.errors import NetworkError
from foveate.networks.build import build_network
from foveate.networks.menu import DECODERS, ENCODERS, find_encoder, pairs
from foveate.networks.parts import DeepSupervision

CLASSES, SIDE = 4, 64
MENU = [pair for pair in pairs() if pair[0] in DECODERS and pair[1] in ENCODERS]
SMALL = ("mobilenetv2dilated", "resnet18", "resnet18dilated")


def heads_of(output):
    return list(output) if isinstance(output, DeepSupervision) else [output]


def check_pair(architecture, encoder, device):
    """Train one step on one patch, then predict; the shapes and the kind of output are as promised."""
    with torch.device(device):
        network = build_network(architecture, encoder, classes=CLASSES, weights=None)
        patch = torch.rand(1, 3, SIDE, SIDE)
        label = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
    before = {name: value.clone() for name, value in network.named_parameters()}
    # Deep networks with random weights have gradients of 1e4 on so small a patch: a larger step leaves float32's range.
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    output = network(patch)
    assert isinstance(output, DeepSupervision) == architecture.endswith("deepsup")
    assert all(head.shape == (1, CLASSES, SIDE, SIDE) for head in heads_of(output))
    sum(nn.functional.cross_entropy(head, label) for head in heads_of(output)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    optimizer.step()
    with torch.no_grad():
        logits = network.eval()(patch)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, CLASSES, SIDE, SIDE)
    return network, before, logits


def check_pair_with_values(architecture, encoder):
    network, before, logits = check_pair(architecture, encoder, "cpu")
    assert torch.isfinite(logits).all()
    head = [name for name in before if not name.startswith("encoder")]
    assert any(not torch.equal(before[name], dict(network.named_parameters())[name]) for name in head)


def test_the_menu_is_the_originals():
    assert len(ENCODERS) == 11
    assert len(MENU) == 8 * 5 + 2 + 1 + 1


@pytest.mark.parametrize(("architecture", "encoder"), MENU)
def test_every_pair_has_the_right_shapes(architecture, encoder):
    check_pair(architecture, encoder, "meta")


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("encoder", SMALL)
def test_small_pairs_train_and_predict(architecture, encoder):
    check_pair_with_values(architecture, encoder)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "encoder"), [pair for pair in MENU if pair[1] not in SMALL])
def test_large_pairs_train_and_predict(architecture, encoder):
    check_pair_with_values(architecture, encoder)


@pytest.mark.parametrize(
    ("architecture", "encoder", "valid"),
    [
        ("ppm_deepsup", "hrnetv2", "c1, ppm"),
        ("upernet", "HRNetV2", "c1, ppm"),
        ("ppm", "U-Net", "c1"),
        ("c1_deepsup", "attention_u_net", "c1"),
        ("fpn", "resnet50dilated", "c1, c1_deepsup, ppm, ppm_deepsup, upernet; resnet50 goes with all"),
    ],
)
def test_an_invalid_pair_says_which_are_valid(architecture, encoder, valid):
    with pytest.raises(
        NetworkError, match=re.escape(f"{encoder!r} does not go with architecture {architecture!r}")
    ) as e:
        build_network(architecture, encoder, classes=2, weights=None)
    assert str(e.value).endswith(f"it goes with {valid}")


def test_every_pair_that_is_not_offered_is_refused():
    for encoder in ENCODERS:
        for architecture in set(DECODERS) - {a for a, e in MENU if e == encoder}:
            with pytest.raises(NetworkError, match="it goes with"):
                find_encoder(encoder, architecture)


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("C1-DeepSup", "ResNet18Dilated"), ("PPM", "Tu-ResNet18"), ("UPerNet", "Convnext-Atto")],
)
def test_names_are_read_whatever_their_case_and_dashes(architecture, encoder):
    network = build_network(architecture, encoder, classes=2, weights=None).eval()
    assert network(torch.rand(1, 3, SIDE, SIDE)).shape == (1, 2, SIDE, SIDE)


@pytest.mark.parametrize(("encoder", "stride"), [("resnet18", 32), ("resnet18dilated", 8), ("mobilenetv2dilated", 8)])
def test_dilated_encoders_keep_an_eighth_of_the_size(encoder, stride):
    network = build_network("c1", encoder, classes=2, weights=None)
    assert network.encoder(torch.rand(1, 3, SIDE, SIDE))[-1].shape[-1] == SIDE // stride


def test_hrnet_joins_its_four_resolutions():
    network = build_network("c1", "hrnetv2", classes=2, weights=None)
    assert [f.shape for f in network.encoder.eval()(torch.rand(1, 3, SIDE, SIDE))] == [(1, 720, SIDE // 4, SIDE // 4)]


@pytest.mark.parametrize("encoder", ["resnet18dilated", "mobilenetv2dilated", "u_net"])
def test_the_menu_takes_any_number_of_bands_and_any_size(encoder):
    network = build_network("c1", encoder, classes=2, in_channels=5, weights=None).eval()
    assert network(torch.rand(2, 5, 45, 61)).shape == (2, 2, 45, 61)


def test_options_reach_the_encoder_of_our_heads():
    network = build_network("c1", "u_net", classes=2, weights=None, width=8, depth=2)
    assert sum(p.numel() for p in network.parameters()) < 50_000
    with pytest.raises(NetworkError, match=r"cannot build c1 with encoder 'u_net'.*with.*change network.options"):
        build_network("c1", "u_net", classes=2, weights=None, with_=8)


def test_deep_supervision_needs_a_stage_before_the_last():
    with pytest.raises(NetworkError, match="c1_deepsup needs a stage before the encoder's last; use c1"):
        build_network("c1_deepsup", "resnet18", classes=2, weights=None, depth=1)


def test_the_auxiliary_head_reads_the_stage_before_the_last_alone():
    network = build_network("ppm_deepsup", "resnet18", classes=2, weights=None)
    network(torch.rand(1, 3, SIDE, SIDE)).auxiliary.sum().backward()
    trained = {name.split(".")[1] for name, p in network.named_parameters() if p.grad is not None and "." in name}
    assert "layer3" in trained
    assert "layer4" not in trained
    assert all(p.grad is None for p in network.head.parameters())
