import sys

import pytest
import torch
from torch import nn

from foveate.build import network_from
from foveate.config_base import Section
from foveate.errors import ConfigError, NetworkError
from foveate.networks.config import VARIABLE, NetworkConfig, check_code, trust_code

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
    """A module in a folder that is allowed, and in a package, with a name of its own: modules are imported once."""
    name = f"own_network_{abs(hash(request.node.name))}"
    (tmp_path / "pkg" / name).mkdir(parents=True)
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    (tmp_path / f"own_helper_{name}.py").write_text("")
    (tmp_path / "pkg" / name / "inner.py").write_text(MODULE.format(name=name))
    (tmp_path / f"broken_{name}.py").write_text("import not_there_at_all")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return name


def build(values, classes=4, in_channels=2):
    return network_from(NetworkConfig.parse(values), classes=classes, in_channels=in_channels)


@pytest.mark.parametrize("path", ["{}:build", "{}:Wrapped", "pkg.{}.inner:build"])
def test_a_string_names_a_network_in_an_allowed_folder(name, path):
    network = network_from(NetworkConfig.model_validate(path.format(name)), classes=4, in_channels=2)
    assert network(torch.rand(1, 2, 8, 8)).shape == (1, 4, 8, 8)


def test_options_are_passed_on(name):
    network = build({"architecture": f"{name}:build", "options": {"kernel": 3}})
    assert isinstance(network, nn.Conv2d)
    assert network.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:build", r"there is no module 'no_such_module' in .*start in the folder that holds it"),
        ("{}.deeper:build", "there is no module '{}.deeper'"),
        ("{}:biuld", "has no 'biuld'; it has Wrapped, build, forgot_to_return"),
        ("{}:NUMBER", "it is a int, not a function or class to call"),
        ("{}:forgot_to_return", "it returned a NoneType; return a torch.nn.Module"),
        ("broken_{}:build", "importing it failed: ModuleNotFoundError: No module named 'not_there_at_all'"),
    ],
)
def test_what_is_wrong_is_said(name, path, message):
    with pytest.raises(NetworkError, match=message.format(name)):
        build({"architecture": path.format(name)})


def test_what_a_factory_raises_is_said_with_its_arguments(name):
    with pytest.raises(
        NetworkError, match=r"classes=4, in_channels=2 and the options \{'colour': 1\} failed: TypeError"
    ):
        build({"architecture": f"{name}:build", "options": {"colour": 1}})


def test_the_import_path_is_left_as_it_was(name):
    before = sys.path.copy()
    build({"architecture": f"{name}:build"})
    assert sys.path == before


@pytest.mark.parametrize("place", ["current directory", "sys.path"])
def test_a_name_alone_imports_nothing(name, tmp_path, monkeypatch, place):
    monkeypatch.delenv(VARIABLE)
    (tmp_path / f"evil_{name}.py").write_text("raise SystemExit('it ran')")
    if place == "sys.path":
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.chdir(tmp_path)
    with pytest.raises(NetworkError, match=r"a name in a configuration is not enough to run code.*--code FOLDER"):
        build({"architecture": f"evil_{name}:build"})
    assert f"evil_{name}" not in sys.modules


def test_a_folder_in_pythonpath_is_allowed_as_by_code(name, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert build({"architecture": f"{name}:build"}).in_channels == 2


def test_what_is_installed_is_allowed_by_its_whole_name(name, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.syspath_prepend(tmp_path)
    trust_code(f"{name}:build")
    assert build({"architecture": f"{name}:build"}).in_channels == 2
    with pytest.raises(NetworkError, match="not enough to run code"):
        build({"architecture": f"{name}:Wrapped"})


def test_what_an_allowed_module_imports_is_not_allowed(name, tmp_path):
    (tmp_path / f"imports_{name}.py").write_text("from subprocess import run")
    with pytest.raises(NetworkError, match=r"it is defined in subprocess; name a function or class that .* defines"):
        build({"architecture": f"imports_{name}:run", "options": {"args": "true"}})


def test_torch_hub_is_never_allowed(name, tmp_path):
    (tmp_path / "hubconf.py").write_text("raise SystemExit('it ran')")
    trust_code("torch.hub:load")
    options = {"repo_or_dir": str(tmp_path), "model": "build", "source": "local"}
    with pytest.raises(NetworkError, match=r"torch\.hub runs code from any folder"):
        build({"architecture": "torch.hub:load", "options": options})


def test_a_module_of_a_name_that_is_loaded_already_is_refused(name, tmp_path):
    (tmp_path / "pytest.py").write_text("def build(**options): ...")
    with pytest.raises(NetworkError, match="another module 'pytest' is already loaded"):
        build({"architecture": "pytest:build"})


def test_code_in_the_folder_of_a_run_is_refused_even_where_it_is_allowed(name, tmp_path):
    with pytest.raises(NetworkError, match="lies in the folder of the run, and nothing is imported from there"):
        check_code(f"{name}:build", tmp_path)
    check_code(f"{name}:build", tmp_path / "elsewhere")


def test_code_of_a_run_is_refused_before_anything_of_the_run_is_used(name, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(NetworkError, match="not enough to run code"):
        check_code(f"{name}:build", tmp_path / "elsewhere")


def test_what_is_imported_is_said(name, tmp_path, caplog):
    build({"architecture": f"{name}:build"})
    assert f"network {name}:build is imported from {tmp_path}" in caplog.text


def test_code_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"missing is not a folder; give the folder of your module"):
        trust_code(tmp_path / "missing")


class Holder(Section):
    network: NetworkConfig = NetworkConfig()


def parsed(values):
    return Holder.parse({"network": values}).network


@pytest.mark.parametrize("text", ["none", "None", None])
def test_weights_none_in_words(text):
    assert parsed({"weights": text}).weights is None


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"architecture": "ppm", "encoder": "hrnetv2", "weights": "none"},
        "pkg.mod:build",
        {"architecture": "mod:Net"},
    ],
)
def test_a_tree_is_read_back_to_the_same(values):
    config = Holder.parse({"network": values})
    assert Holder.parse(config.tree()).tree() == config.tree()
    assert Holder.parse(config.tree()) == config


def test_a_tree_of_ones_own_network_holds_no_encoder():
    own = {"architecture": "pkg.mod:build", "options": {}}
    assert parsed("pkg.mod:build").tree() == own
    assert parsed({"factory": "pkg.mod:build"}).tree() == own  # as earlier versions wrote it
    assert parsed({"factory": None, "encoder": "resnet18"}).encoder == "resnet18"
    assert list(NetworkConfig().tree()) == ["architecture", "encoder", "weights", "options"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("unet", r"\{architecture: NAME, encoder: NAME\}, or the import path of your own, package.module:callable"),
        ({"architecture": "mod:build", "encoder": "resnet18"}, "mod:build builds the whole network; remove encoder"),
        ({"architecture": "mod:build", "weights": None}, "remove weights"),
        ({"architecture": "mod:build:x"}, "package.module:callable"),
        ({"factory": "mod:build", "architecture": "unet"}, "package.module:callable"),
        ({"options": {"classes": 2}}, "options: classes cannot be options; they are set elsewhere"),
        ({"encodr": "resnet18"}, "did you mean 'encoder'"),
    ],
)
def test_what_is_not_allowed_is_said(values, message):
    with pytest.raises(ConfigError, match=message):
        parsed(values)
