import pytest

from foveate.errors import ConfigError
from foveate.foveation.config import FoveationConfig
from foveate.foveation.estimators import CoarseFirst, FixedScale
from foveate.paper import StraightThroughArgmax

BASE = {"patch_size": 64, "fields_of_view": [64, 128, 256]}


def test_without_an_estimator_the_network_looks_coarsely_first():
    assert FoveationConfig.parse(BASE).estimator == CoarseFirst()


def test_estimators_are_chosen_by_name():
    config = FoveationConfig.parse({**BASE, "estimator": {"name": "mode", "inverse": False}})
    assert config.estimator == StraightThroughArgmax(name="mode_plain")
    assert FoveationConfig.parse(config.tree()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields_of_view": [32, 64]}, "smaller than the patch"),
        ({"fields_of_view": [128, 64]}, "ascending"),
        ({"estimator": {"name": "fixed", "index": 3}}, "beyond the 3 fields of view"),
        ({"estimator": {"name": "gumbel", "tua_end": 1}}, "did you mean 'tau_end'"),
        ({"field_of_view": [64]}, "did you mean 'fields_of_view'"),
        ({"estimator": {"name": "cascade", "gian": 2}}, "did you mean 'gain'"),
        ({"estimator": {"name": "coarse_first", "index": 2}}, "coarse_first.index'; known keys: name"),
        ({"estimator": {"name": "gumbel", "tau_end": 0}}, "greater than 0"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        FoveationConfig.parse({**BASE, **change})


def test_fixed_scale_within_the_set_is_accepted():
    assert FoveationConfig.parse({**BASE, "estimator": {"name": "fixed", "index": 2}}).estimator == FixedScale(index=2)
