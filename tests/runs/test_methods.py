from pathlib import Path

import pytest

from foveate.cli.commands.compare import HELP
from foveate.errors import ConfigError
from foveate.foveation.estimators import FixedScale, GumbelSoftmax, SoftExpectation, StraightThroughArgmax
from foveate.runs.compare import fitting_methods
from foveate.runs.config import RunConfig
from foveate.runs.methods import all_methods, with_method
from toys import toy_config, write_config


def values(**foveation):
    tree = toy_config("somewhere")
    del tree["foveation"]["estimator"]
    tree["foveation"].update(foveation)
    return tree


@pytest.mark.parametrize("method", all_methods(2))
def test_every_method_gives_a_configuration_that_reads_back(method):
    config = RunConfig.parse(with_method(values(), method))
    assert RunConfig.parse(config.tree()) == config
    assert config.method == method


@pytest.mark.parametrize(
    ("method", "estimator"),
    [
        ("patch_2", FixedScale(index=1)),
        ("gsm", GumbelSoftmax(hard=False)),
        ("gsm_hard", GumbelSoftmax(hard=True)),
        ("mode", StraightThroughArgmax(inverse=False)),
        ("mode_inverse", StraightThroughArgmax(inverse=True)),
    ],
)
def test_names_of_the_paper(method, estimator):
    assert RunConfig.parse({**values(), "method": method}).foveation.estimator == estimator


def test_settings_of_the_estimator_are_kept():
    config = RunConfig.parse({**values(estimator={"name": "gumbel", "tau": 3.0}), "method": "gsm"})
    assert config.foveation.estimator == GumbelSoftmax(hard=False, tau=3.0)


def test_a_method_and_another_estimator_are_a_contradiction():
    with pytest.raises(ConfigError, match=r"method 'mean' means estimator.name 'mean'.*says 'gumbel'"):
        RunConfig.parse({**values(estimator={"name": "gumbel"}), "method": "mean"})


@pytest.mark.parametrize("method", ["patch_3", "patch_0", "medium"])
def test_unknown_methods_are_told_what_there_is(method):
    with pytest.raises(
        ConfigError, match=f"unknown method '{method}'; for 2 fields of view there are patch_1, patch_2"
    ):
        RunConfig.parse({**values(), "method": method})


def test_members_are_for_ensembles():
    with pytest.raises(ConfigError, match="members are for method ensemble"):
        RunConfig.parse({**values(), "method": "mean", "members": ["a", "b"]})
    with pytest.raises(ConfigError, match="one for each of the 2 fields of view"):
        RunConfig.parse({**values(), "method": "ensemble", "members": ["a"]})


def test_another_method_keeps_the_settings_of_its_own_estimator_only():
    gumbel = values(estimator={"name": "gumbel", "hard": True, "tau": 3.0})
    assert RunConfig.parse(with_method(gumbel, "gsm")).foveation.estimator == GumbelSoftmax(hard=False, tau=3.0)
    assert RunConfig.parse(with_method(gumbel, "mode")).foveation.estimator == StraightThroughArgmax(inverse=False)


def test_the_ending_paper_is_the_papers_alignment():
    config = RunConfig.parse(with_method(values(), "mean_paper"))
    assert config.foveation.alignment == "paper"
    assert config.foveation.estimator == SoftExpectation()
    assert RunConfig.parse(config.tree()) == config
    assert RunConfig.parse(with_method(values(), "mean")).foveation.alignment == "aligned"


def test_a_configuration_of_an_earlier_version_gets_the_new_keys_at_their_defaults():
    config = RunConfig.parse({**values(), "method": "mixture"})
    older = config.tree()
    del older["foveation"]["estimator"]["top"], older["inference"]["planner"], older["training"]["losses"]["auxiliary"]
    assert RunConfig.completed(older) == config.tree()


PAPER_CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "paper").glob("*.yaml"))


@pytest.mark.parametrize("path", PAPER_CONFIGS, ids=lambda path: path.stem)
def test_every_method_is_a_configuration_of_every_setting_of_the_paper(path):
    own = RunConfig.load(path)
    methods, others = fitting_methods(own)
    assert set(others) <= {"cascade"}  # whose looks nest, which the paper's do not
    for method in methods:
        config = RunConfig.load(path, [f"method={method}"])
        assert config.method == method
        assert config == RunConfig.load(path, method=method)
        assert RunConfig.parse(config.tree()) == config
    assert RunConfig.load(path, ["method=gsm"]) == own  # with the temperature of the file


def test_an_override_is_for_the_method_that_is_given_with_it(tmp_path):
    path = write_config(tmp_path / "mean.yaml", {**values(), "method": "mean"})
    config = RunConfig.load(path, ["method=gsm", "foveation.estimator.tau=3"])
    assert config.foveation.estimator == GumbelSoftmax(hard=False, tau=3.0)
    assert RunConfig.load(path, ["foveation.fields_of_view=[32,64,96]", "method=patch_3"]).method == "patch_3"
    with pytest.raises(ConfigError, match="tau"):
        RunConfig.load(path, ["method=mode", "foveation.estimator.tau=3"])


def test_the_help_of_compare_names_every_method():
    assert all(method in HELP for method in all_methods(0))
