"""Configurations of earlier versions: what means the same today loads, what is gone is named."""

import pytest

from foveate.config_base import with_overrides
from foveate.errors import ConfigError
from foveate.runs.config import RunConfig
from toys import toy_config

POLICY = {"hidden": None, "dilations": [1, 1, 1], "normalisation": "batch", "encoder": None, "weights": "imagenet"}
MIXTURE = {"name": "mixture", "own_window": 1.0, "regress": 0.0, "top": 1, "features": None}


def earlier(tmp_path, **foveation):
    tree = toy_config(tmp_path)
    return {**tree, "foveation": {**tree["foveation"], **foveation}}


def test_a_saved_configuration_of_an_earlier_version_loads(tmp_path):
    tree = RunConfig.completed(earlier(tmp_path, policy=POLICY, estimator=MIXTURE))
    assert "policy" not in tree["foveation"]
    assert tree["foveation"]["estimator"] == {"name": "mixture", "own_window": 1.0, "top": 1}
    assert RunConfig.completed(tree) == tree


@pytest.mark.parametrize(
    ("foveation", "named"),
    [
        ({"policy": {**POLICY, "dilations": [1, 2, 4]}}, r"foveation\.policy\.dilations=\[1, 2, 4\] is no longer"),
        ({"policy": {**POLICY, "hidden": 7}}, r"foveation\.policy\.hidden=7 is no longer"),
        ({"policy": {**POLICY, "normalisation": "none"}}, r"foveation\.policy\.normalisation=none is no longer"),
        ({"policy": {**POLICY, "encoder": "resnet18"}}, r"foveation\.policy\.encoder=resnet18 is no longer"),
        ({"estimator": {**MIXTURE, "regress": 1.0}}, r"foveation\.estimator\.regress=1\.0 is no longer"),
        ({"estimator": {**MIXTURE, "features": 16}}, r"foveation\.estimator\.features=16 is no longer"),
    ],
)
def test_a_feature_that_is_gone_is_named(tmp_path, foveation, named):
    with pytest.raises(ConfigError, match=named):
        RunConfig.completed(earlier(tmp_path, **foveation))


def test_the_surest_prediction_of_a_pixel_is_gone_and_the_average_loads(tmp_path):
    tree = toy_config(tmp_path)
    kept = RunConfig.completed({**tree, "inference": {**tree["inference"], "stitching": "average"}})
    assert kept == RunConfig.completed(tree)
    with pytest.raises(ConfigError, match=r"inference\.stitching=max_score is no longer"):
        RunConfig.completed({**tree, "inference": {**tree["inference"], "stitching": "max_score"}})


REMOVED = [
    ("training.momentum", 0.9, 0.5),
    ("training.losses.auxiliary", 0.4, 1.0),
    ("training.losses.focal_gamma", 2.0, 1.0),
    ("training.losses.ohem", 0.0, 1.0),
    ("training.losses.ohem_keep", 0.25, 0.5),
    ("data.ignore_index", 255, 254),
    ("inference.glass", "null", "ground"),
    ("inference.polygons.coordinates", "auto", "lonlat"),
    ("inference.keep", 0.5, 0.75),
    ("foveation.estimator.sharp", 0.75, 0.5),
]


@pytest.mark.parametrize(("path", "default", "other"), REMOVED)
def test_a_setting_that_nobody_turned_loads_at_its_value(tmp_path, path, default, other):
    tree = earlier(tmp_path, fields_of_view=[32, 64], estimator={"name": "cascade"})
    assert RunConfig.completed(with_overrides(tree, [f"{path}={default}"])) == RunConfig.completed(tree)
    with pytest.raises(ConfigError, match=rf"{path}={other} is no longer there"):
        RunConfig.parse(with_overrides(tree, [f"{path}={other}"]))


@pytest.mark.parametrize(
    ("name", "key", "default", "other"),
    [
        ("coarse_first", "own_window", 1.0, 0.5),
        ("coarse_first", "narrowest", "null", 0.75),
        ("glnet", "own_window", 1.0, 0.5),
        ("gumbel", "tau", 1.0, 2.0),
        ("gumbel_soft", "sample", "false", "true"),
    ],
)
def test_a_setting_of_an_estimator_that_nobody_turned_loads_at_its_value(tmp_path, name, key, default, other):
    tree = earlier(tmp_path, fields_of_view=[32, 64], estimator={"name": name})
    path = f"foveation.estimator.{key}"
    assert RunConfig.completed(with_overrides(tree, [f"{path}={default}"])) == RunConfig.completed(tree)
    with pytest.raises(ConfigError, match=rf"(?i){path}={other} is no longer there"):
        RunConfig.parse(with_overrides(tree, [f"{path}={other}"]))


@pytest.mark.parametrize(
    ("path", "default", "other"),
    [("data.cache_mb", 512, 64), ("training.log_every", 10, 1)],
)
def test_a_setting_that_changed_no_result_is_left_out_with_a_warning(tmp_path, path, default, other):
    tree = toy_config(tmp_path)
    assert RunConfig.completed(with_overrides(tree, [f"{path}={default}"])) == RunConfig.completed(tree)
    with pytest.warns(UserWarning, match=f"{path} is no longer a setting; .* is left out"):
        assert RunConfig.completed(with_overrides(tree, [f"{path}={other}"])) == RunConfig.completed(tree)


def test_the_switches_of_augmentation_became_two_settings(tmp_path):
    saved = {"flip": True, "rotate90": False, "brightness": 0.2, "contrast": 0.2, "saturation": 0.1, "hue": 0.0}
    now = augmented(tmp_path, saved)
    assert (now.orientations, now.color_jitter) == ("flips", (0.2, 0.2, 0.1))
    assert augmented(tmp_path, {"hue": 0.1}).color_jitter == (0, 0, 0, 0.1)
    for flip, turn, name in ((True, True, "d4"), ("horizontal", False, "horizontal"), (False, False, "none")):
        assert augmented(tmp_path, {"flip": flip, "rotate90": turn}).orientations == name
    for wrong in ({"flip": False}, {"flip": True, "orientations": "d4"}, {"hue": 0.1, "color_jitter": [0.2]}):
        with pytest.raises(ConfigError, match=r"two settings now\. Give orientations .* and color_jitter"):
            augmented(tmp_path, wrong)


def augmented(tmp_path, values):
    tree = toy_config(tmp_path)
    return RunConfig.parse({**tree, "data": {**tree["data"], "augmentation": values}}).data.augmentation


def test_settings_that_became_one_load(tmp_path):
    tree = toy_config(tmp_path)
    plain = {"val_fraction": 0.0, "test_fraction": 0.0}
    saved = {**tree["data"], "use_nodata": True, "nodata": 3.0, "split": {**tree["data"]["split"], **plain}}
    kept = RunConfig.completed({**tree, "data": saved})
    assert kept == RunConfig.completed({**tree, "data": {**tree["data"], "nodata": 3.0}})
    drawn = {"train": None, "val": None, "test": None, "val_fraction": 0.2, "test_fraction": 0.1}
    marked = {**saved, "use_nodata": False, "nodata": None, "split": drawn}
    data = RunConfig.parse({**tree, "data": marked}).data
    assert (data.split.val, data.split.test, data.nodata, data.use_nodata) == (0.2, 0.1, "ignore", False)
    with pytest.raises(ConfigError, match=r"nodata: 3\.0 leaves such pixels out.*nodata: ignore takes all"):
        RunConfig.completed({**tree, "data": {**marked, "nodata": 3.0}})  # neither is what it was
    assert RunConfig.parse({**tree, "data": {**tree["data"], "nodata": 0}}).data.nodata == 0
