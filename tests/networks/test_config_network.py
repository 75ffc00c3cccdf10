import pytest

from foveate.config_base import Section
from foveate.errors import ConfigError
from foveate.networks.config import NetworkConfig


class Holder(Section):
    network: NetworkConfig = NetworkConfig()


def parsed(values):
    return Holder.parse({"network": values}).network


@pytest.mark.parametrize("text", ["none", "None", None])
def test_weights_none_in_words(text):
    assert parsed({"weights": text}).weights is None


@pytest.mark.parametrize(
    "values",
    [{}, {"architecture": "ppm", "encoder": "hrnetv2", "weights": "none"}, "pkg.mod:build", {"factory": "mod:Net"}],
)
def test_a_tree_is_read_back_to_the_same(values):
    config = Holder.parse({"network": values})
    assert Holder.parse(config.tree()).tree() == config.tree()
    assert Holder.parse(config.tree()) == config


def test_a_tree_holds_either_names_or_a_factory():
    assert parsed("pkg.mod:build").tree() == {"factory": "pkg.mod:build", "options": {}}
    assert list(NetworkConfig().tree()) == ["architecture", "encoder", "weights", "options"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("unet", r"\{architecture: NAME, encoder: NAME\}, or the import path of your own, package.module:callable"),
        ({"factory": "mod:build", "encoder": "resnet18"}, "factory mod:build builds the whole network; remove encoder"),
        ({"factory": "mod:build", "weights": None}, "remove weights or factory"),
        ({"options": {"classes": 2}}, "options: classes cannot be options; they are set elsewhere"),
        ({"encodr": "resnet18"}, "did you mean 'encoder'"),
    ],
)
def test_what_is_not_allowed_is_said(values, message):
    with pytest.raises(ConfigError, match=message):
        parsed(values)
