import copy
import os
import pickle
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.errors import NetworkError
from foveate.networks.build import SingleValueBatchNorm2d, allow_single_values, build_network, network_cost
from foveate.networks.menu import ARCHITECTURES


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("unet", "resnet18"), ("FPN", "tf_efficientnet_lite0"), ("deeplabv3plus", "tu-resnet18")],
)
def test_networks_are_built_by_name(architecture, encoder):
    network = build_network(architecture, encoder, classes=5, weights=None).eval()
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 5, 64, 64)


@pytest.mark.parametrize(
    ("architecture", "encoder", "message"),
    [
        ("unett", "resnet18", "unknown architecture 'unett'; did you mean unet"),
        ("unet", "resnet19", "unknown encoder 'resnet19'; did you mean resnet1"),
    ],
)
def test_unknown_names_bring_the_nearest(architecture, encoder, message):
    with pytest.raises(NetworkError, match=message):
        build_network(architecture, encoder, classes=2, weights=None)


@pytest.mark.parametrize(("classes", "channels"), [(0, 3), (-1, 3), (2, 0)])
def test_a_network_without_classes_or_channels_is_refused_before_weights_are_sought(classes, channels):
    with pytest.raises(NetworkError, match=f"got {classes} and {channels}"):
        build_network("unet", "resnet18", classes=classes, in_channels=channels)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("bands", [3, 5])
def test_encoder_weights_come_from_a_classifiers_checkpoint(tmp_path, name, bands):
    classifier = timm.create_model(name, pretrained=False)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    network = build_network("fpn", f"tu-{name}", classes=2, in_channels=bands, weights=str(tmp_path / "weights.pth"))
    stem = "conv1.weight" if name == "resnet18" else "conv_stem.weight"
    stored, loaded = classifier.state_dict()[stem], network.get_submodule("encoder.model").state_dict()[stem]
    torch.testing.assert_close(loaded[:, :3], stored * 3 / bands)


def test_names_of_another_library_are_matched_by_order(tmp_path):
    stored = {f"_other.{i}": t for i, t in enumerate(timm.create_model("tf_efficientnet_lite0").state_dict().values())}
    torch.save(stored, tmp_path / "weights.pth")
    with pytest.raises(NetworkError, match="neither by name nor by order"):
        build_network("fpn", "tu-resnet18", classes=2, weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_bad_weight_files_are_named(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content:
        path.write_bytes(content)
    with pytest.raises(NetworkError, match=r"weights\.pth"):
        build_network("unet", "tu-resnet18", classes=2, weights=str(path))


@pytest.mark.parametrize(
    ("encoder", "classifier"),
    [
        ("resnet18dilated", "resnet18"),
        ("mobilenetv2dilated", "mobilenetv2_100"),
        pytest.param("hrnetv2", "hrnet_w48", marks=pytest.mark.slow),
    ],
)
def test_the_menus_encoders_take_the_weights_of_their_classifier(tmp_path, encoder, classifier):
    stored = timm.create_model(classifier).state_dict()
    save_file(stored, tmp_path / "weights.safetensors")
    network = build_network("c1", encoder, classes=2, weights=str(tmp_path / "weights.safetensors"))
    loaded = {name.removeprefix("model."): value for name, value in network.encoder.named_parameters()}
    assert len(loaded) > 50
    assert all(torch.equal(value, stored[name]) for name, value in loaded.items())


def test_weights_that_cannot_be_downloaded_can_be_given_as_a_file(tmp_path):
    program = "from foveate import build_network; build_network('c1', 'resnet18dilated', classes=2)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "NetworkError: cannot build c1 with encoder 'resnet18dilated': its ImageNet weights could not be" in last
    assert "network.weights=PATH (.pth, .pt or .safetensors)" in last
    assert last.endswith("network.weights=none")


@pytest.mark.parametrize(
    ("architecture", "encoder", "option", "message"),
    [
        ("fpn", "resnet18", "decoder_pyramid_chanels", "has no option .*; did you mean decoder_pyramid_channels"),
        ("c1", "resnet18dilated", "stride", "has no option 'stride'; did you mean output_stride"),
        ("c1", "resnet18", "colour", "has no option 'colour'; known are depth, output_stride"),
        ("c1", "hrnetv2", "colour", r"cannot build .*\['colour'\]; change network\.options"),
        ("fpn", "tu-resnet18", "colour", r"cannot build .*'colour'; change network\.options"),
    ],
)
def test_options_that_do_not_fit_are_named(architecture, encoder, option, message):
    with pytest.raises(NetworkError, match=message):
        build_network(architecture, encoder, classes=2, weights=None, **{option: 1})


def test_an_encoder_without_imagenet_weights_says_so():
    with pytest.raises(NetworkError, match=r"no ImageNet weights of u_net exist; set network\.weights to none"):
        build_network("c1", "u_net", classes=2)


def normalised(value=1.0):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    nn.init.constant_(network[1].running_mean, value)
    nn.init.normal_(network[1].weight)
    return network


def test_a_single_value_is_normalised_by_the_running_statistics_which_stay():
    network = normalised()
    allow_single_values(network)
    image = torch.rand(1, 3, 4, 4)
    state = copy.deepcopy(network.state_dict())
    trained = network(image)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    torch.testing.assert_close(trained, network.eval()(image))
    trained.sum().backward()
    assert network[1].weight.grad.abs().sum() > 0


def test_anything_else_is_as_before():
    plain, patched = normalised(), normalised()
    patched.load_state_dict(plain.state_dict())
    allow_single_values(patched)
    for image in (torch.rand(2, 3, 4, 4), torch.rand(5, 3, 1, 1)):
        assert torch.equal(plain(image), patched(image))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in patched.state_dict().items())


def test_the_network_can_be_copied_and_sent_to_other_processes():
    network = normalised()
    allow_single_values(network)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert type(again[1]) is SingleValueBatchNorm2d
        assert again(torch.rand(1, 3, 4, 4)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    "architecture", [name for name in ARCHITECTURES if name != "dpt"]
)  # dpt takes transformers only
def test_every_architecture_trains_on_a_batch_of_one(architecture):
    network = build_network(architecture, "resnet18", classes=2, weights=None)
    output = network(torch.rand(1, 3, 128, 128))
    logits = output[0] if isinstance(output, tuple) else output
    logits.sum().backward()
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("encoder", ["tu-skresnet18", "resnest14d"])
def test_encoders_that_normalise_after_pooling_train_on_a_batch_of_one(encoder):
    network = build_network("c1", encoder, classes=2, weights=None)
    assert torch.isfinite(network(torch.rand(1, 3, 64, 64))).all()


def test_one_convolution_is_counted_by_hand():
    small = network_cost("c1", "u_net", patch_size=32, classes=2, width=4, depth=1)
    large = network_cost("c1", "u_net", patch_size=64, classes=2, width=4, depth=1)
    more = network_cost("c1", "u_net", patch_size=32, classes=5, width=4, depth=1)
    assert large.multiply_adds == 4 * small.multiply_adds
    # The last convolution has 1 x 1 weights from one channel (width // 4), and a bias, per class.
    assert more.multiply_adds - small.multiply_adds == 3 * 32 * 32
    assert more.parameters - small.parameters == 3 * 2


@pytest.mark.parametrize(("architecture", "encoder"), [("ppm_deepsup", "mobilenetv2dilated"), ("segformer", "mit_b0")])
def test_counting_without_memory_is_counting_the_real_network(architecture, encoder):
    cost = network_cost(architecture, encoder, patch_size=64, classes=3, in_channels=4)
    network = build_network(architecture, encoder, classes=3, in_channels=4, weights=None).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 4, 64, 64))
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.multiply_adds == counter.get_total_flops() // 2


def test_a_patch_that_does_not_fit_is_said():
    with pytest.raises(
        NetworkError, match=r"linknet with encoder 'resnet18' takes no patch of 100 px: .*divisible by 32"
    ):
        network_cost("linknet", "resnet18", patch_size=100, classes=2)
