import pytest
import timm
import torch

from foveate.errors import NetworkError
from foveate.networks.build import build_network


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
    with pytest.raises(NetworkError, match="agree neither in name nor in order"):
        build_network("fpn", "tu-resnet18", classes=2, weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_bad_weight_files_are_named(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content:
        path.write_bytes(content)
    with pytest.raises(NetworkError, match=r"weights\.pth"):
        build_network("unet", "tu-resnet18", classes=2, weights=str(path))
