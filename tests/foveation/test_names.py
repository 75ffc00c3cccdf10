from pathlib import Path

import pytest

from foveate.cli.evaluate import compare
from foveate.errors import ConfigError
from foveate.foveation.config import all_names, earlier_name, name_of, name_today
from foveate.foveation.estimators import FixedScale, GumbelSoftmax
from foveate.paper import SoftExpectation, StraightThroughArgmax
from foveate.runs.compare import fitting_estimators
from foveate.runs.config import RunConfig
from toys import toy_config, write_config


def values(**foveation):
    tree = toy_config("somewhere")
    del tree["foveation"]["estimator"]
    tree["foveation"].update(foveation)
    return tree


def name(config):
    return name_of(config.foveation.estimator) + "_paper" * (config.foveation.alignment == "paper")


@pytest.mark.parametrize("given", all_names(2))
def test_every_name_gives_a_configuration_that_reads_back(given):
    config = RunConfig.parse(values(estimator=given))
    assert RunConfig.parse(config.tree()) == config
    assert name(config) == given


@pytest.mark.parametrize(
    ("given", "estimator"),
    [
        ("fixed_2", FixedScale(index=1)),
        ("gumbel_soft", GumbelSoftmax(name="gumbel_soft")),
        ("gumbel", GumbelSoftmax()),
        ("mode_plain", StraightThroughArgmax(name="mode_plain")),
        ("mode", StraightThroughArgmax()),
    ],
)
def test_names_with_settings(given, estimator):
    assert RunConfig.parse(values(estimator=given)).foveation.estimator == estimator


@pytest.mark.parametrize(
    ("method", "estimator"),
    [
        ("patch_2", FixedScale(index=1)),
        ("gsm", GumbelSoftmax(name="gumbel_soft")),
        ("gsm_hard", GumbelSoftmax()),
        ("mode", StraightThroughArgmax(name="mode_plain")),
        ("mode_inverse", StraightThroughArgmax()),
        ("mean", SoftExpectation()),
    ],
)
def test_a_method_of_an_earlier_version_means_what_it_meant(method, estimator):
    assert RunConfig.parse({**values(), "method": method}).foveation.estimator == estimator
    resolved = {**values(estimator=estimator.tree()), "method": method}
    assert RunConfig.parse(resolved).foveation.estimator == estimator
    assert "method" not in RunConfig.completed(resolved)
    today = name_today(method)
    assert RunConfig.parse(values(estimator=today)).foveation.estimator == estimator
    assert earlier_name(today) == (method if method != today else None)


@pytest.mark.parametrize(
    ("saved", "estimator"),
    [
        ({"name": "gumbel", "hard": False, "tau_end": 2.0}, GumbelSoftmax(name="gumbel_soft", tau_end=2.0)),
        ({"name": "gumbel", "hard": True}, GumbelSoftmax()),
        ({"name": "mode", "inverse": False}, StraightThroughArgmax(name="mode_plain")),
        ({"name": "mode", "inverse": True}, StraightThroughArgmax()),
    ],
)
def test_a_setting_of_an_earlier_version_is_a_name_today(saved, estimator):
    assert RunConfig.parse(values(estimator=saved)).foveation.estimator == estimator
    method = {"gumbel_soft": "gsm", "gumbel": "gsm_hard", "mode_plain": "mode", "mode": "mode_inverse"}[estimator.name]
    assert RunConfig.parse({**values(estimator=saved), "method": method}).foveation.estimator == estimator
    with pytest.raises(ConfigError, match=r"method 'mean' means estimator\.name 'mean'"):
        RunConfig.parse({**values(estimator=saved), "method": "mean"})


def test_a_method_and_a_setting_of_another_are_a_contradiction():
    with pytest.raises(ConfigError, match=r"method 'gsm' means estimator.name 'gumbel_soft'.*says 'gumbel'"):
        RunConfig.parse({**values(estimator={"name": "gumbel", "hard": True}), "method": "gsm"})


def test_settings_of_the_estimator_are_kept():
    config = RunConfig.parse({**values(estimator={"name": "gumbel", "tau_end": 3.0}), "method": "gsm"})
    assert config.foveation.estimator == GumbelSoftmax(name="gumbel_soft", tau_end=3.0)


def test_a_method_and_another_estimator_are_a_contradiction():
    with pytest.raises(ConfigError, match=r"method 'mean' means estimator.name 'mean'.*says 'gumbel'"):
        RunConfig.parse({**values(estimator={"name": "gumbel"}), "method": "mean"})


@pytest.mark.parametrize("given", ["fixed_3", "fixed_0", "medium"])
def test_unknown_names_are_told_what_there_is(given):
    with pytest.raises(
        ConfigError, match=f"unknown estimator '{given}'; for 2 fields of view there are fixed_1, fixed_2"
    ):
        RunConfig.parse(values(estimator=given))


def test_names_of_earlier_versions_are_told_their_names_of_today(tmp_path):
    with pytest.raises(ConfigError, match="no estimator 'gsm': it is called 'gumbel_soft' now"):
        RunConfig.parse(values(estimator="gsm"))
    with pytest.raises(ConfigError, match=r"method=patch_1 is now called foveation\.estimator=fixed_1"):
        RunConfig.load(write_config(tmp_path / "a.yaml", values()), ["method=patch_1"])


def test_members_are_for_ensembles():
    with pytest.raises(ConfigError, match="members is for the estimator ensemble only"):
        RunConfig.parse({**values(estimator="mean"), "members": ["a", "b"]})
    with pytest.raises(ConfigError, match="one run for each of 2 fields of view"):
        RunConfig.parse({**values(estimator="ensemble"), "members": ["a"]})


def test_another_name_keeps_the_settings_of_its_own_estimator_only():
    gumbel = RunConfig.parse(values(estimator={"name": "gumbel", "hard": True, "tau_end": 3.0}))
    assert gumbel.changed([], "gumbel_soft").foveation.estimator == GumbelSoftmax(name="gumbel_soft", tau_end=3.0)
    assert gumbel.changed([], "mode_plain").foveation.estimator == StraightThroughArgmax(name="mode_plain")


def test_the_ending_paper_is_the_papers_alignment():
    config = RunConfig.parse(values(estimator="mean_paper"))
    assert config.foveation.alignment == "paper"
    assert config.foveation.estimator == SoftExpectation()
    assert RunConfig.parse(config.tree()) == config
    assert RunConfig.parse(values(estimator="mean")).foveation.alignment == "aligned"


def test_a_configuration_of_an_earlier_version_gets_the_new_keys_at_their_defaults():
    config = RunConfig.parse(values(estimator="mixture"))
    older = config.tree()
    del older["foveation"]["estimator"]["top"], older["inference"]["planner"], older["training"]["losses"]["focal"]
    assert RunConfig.completed({**older, "method": "mixture"}) == config.tree()


PAPER_CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "paper").glob("*.yaml"))


@pytest.mark.parametrize("path", PAPER_CONFIGS, ids=lambda path: path.stem)
def test_every_name_is_a_configuration_of_every_setting_of_the_paper(path):
    own = RunConfig.load(path)
    names, others = fitting_estimators(own)
    assert set(others) <= {"cascade"}  # whose looks nest, which the paper's do not
    for given in names:
        config = RunConfig.load(path, [f"foveation.estimator={given}"])
        assert name_of(config.foveation.estimator) == given
        assert config == RunConfig.load(path, estimator=given)
        assert RunConfig.parse(config.tree()) == config
    assert RunConfig.load(path, ["foveation.estimator=gumbel_soft"]) == own  # with the temperature of the file


def test_an_override_is_for_the_estimator_that_is_given_with_it(tmp_path):
    path = write_config(tmp_path / "mean.yaml", values(estimator="mean"))
    config = RunConfig.load(path, ["foveation.estimator=gumbel_soft", "foveation.estimator.tau_end=3"])
    assert config.foveation.estimator == GumbelSoftmax(name="gumbel_soft", tau_end=3.0)
    wider = RunConfig.load(path, ["foveation.fields_of_view=[32,64,96]", "foveation.estimator=fixed_3"])
    assert name(wider) == "fixed_3"
    settings = RunConfig.load(path, ["foveation.estimator={name: fixed, own_window: 0.5}"], estimator="fixed_2")
    assert settings.foveation.estimator == FixedScale(index=1, own_window=0.5)
    with pytest.raises(ConfigError, match="tau_end"):
        RunConfig.load(path, ["foveation.estimator=mode", "foveation.estimator.tau_end=3"])


def test_the_help_of_compare_names_every_estimator():
    assert all(given in compare.__doc__ for given in all_names(0))
