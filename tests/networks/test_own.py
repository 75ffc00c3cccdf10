import sys

import pytest
import torch
from torch import nn

from foveate.errors import NetworkError
from foveate.networks.config import NetworkConfig
from foveate.networks.from_config import network_from

MODULE = """
from torch import nn
import own_helper_{name}

NUMBER = 3

class Wrapped(nn.Conv2d):
    def __init__(self, *, classes, in_channels, kernel=1):
        super().__init__(in_channels, classes, kernel, padding=kernel // 2)

def build(classes, in_channels, **options):
    return Wrapped(classes=classes, in_channels=in_channels, **options)

def forgot_to_return(classes, in_channels):
    Wrapped(classes=classes, in_channels=in_channels)
"""


@pytest.fixture
def name(tmp_path, monkeypatch, request):
    """A module in the current directory, and in a package, with a name of its own: modules are imported once."""
    name = f"own_network_{abs(hash(request.node.name))}"
    (tmp_path / "pkg" / name).mkdir(parents=True)
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    (tmp_path / f"own_helper_{name}.py").write_text("")
    (tmp_path / "pkg" / name / "inner.py").write_text(MODULE.format(name=name))
    (tmp_path / f"broken_{name}.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    return name


def build(values, classes=4, in_channels=2):
    return network_from(NetworkConfig.parse(values), classes=classes, in_channels=in_channels)


@pytest.mark.parametrize("path", ["{}:build", "{}:Wrapped", "pkg.{}.inner:build"])
def test_a_string_names_a_network_in_the_current_directory(name, path):
    network = network_from(NetworkConfig.model_validate(path.format(name)), classes=4, in_channels=2)
    assert network(torch.rand(1, 2, 8, 8)).shape == (1, 4, 8, 8)


def test_options_are_passed_on(name):
    network = build({"factory": f"{name}:build", "options": {"kernel": 3}})
    assert isinstance(network, nn.Conv2d)
    assert network.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:build", r"there is no module 'no_such_module' in .*start from the folder that holds it"),
        ("{}.deeper:build", "there is no module '{}.deeper'"),
        ("{}:biuld", "has no 'biuld'; it has Wrapped, build, forgot_to_return"),
        ("{}:NUMBER", "it is a int, not a function or class to call"),
        ("{}:forgot_to_return", "it returned a NoneType; return a torch.nn.Module"),
        ("broken_{}:build", "importing it failed: ModuleNotFoundError: No module named 'not_there_at_all'"),
    ],
)
def test_what_is_wrong_is_said(name, path, message):
    with pytest.raises(NetworkError, match=message.format(name)):
        build({"factory": path.format(name)})


def test_what_a_factory_raises_is_said_with_its_arguments(name):
    with pytest.raises(
        NetworkError, match=r"classes=4, in_channels=2 and the options \{'colour': 1\} failed: TypeError"
    ):
        build({"factory": f"{name}:build", "options": {"colour": 1}})


def test_the_import_path_is_left_as_it_was(name):
    before = sys.path.copy()
    build({"factory": f"{name}:build"})
    assert sys.path == before
