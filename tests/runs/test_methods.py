import pytest

from foveate.errors import ConfigError
from foveate.foveation.estimators import FixedScale, GumbelSoftmax, SoftExpectation, StraightThroughArgmax
from foveate.runs.config import RunConfig
from foveate.runs.methods import all_methods, with_method
from toys import toy_config


def values(**foveation):
    tree = toy_config("somewhere")
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
