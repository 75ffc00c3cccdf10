from pathlib import Path

import pytest
from data_toys import CLASSES

from foveate.data.config import DataConfig
from foveate.data.sections import ClassConfig
from foveate.errors import ConfigError

GOOD = {"folder": "scenes", "classes": CLASSES}


def test_defaults_and_round_trip(monkeypatch):
    monkeypatch.setenv("FOVEATE_DATA", "/somewhere")
    config = DataConfig.parse(GOOD)
    assert config.root == Path("/somewhere")
    assert config.channel_mean[0] == 0.485
    assert DataConfig.parse({**GOOD, "in_channels": 5}).channel_std == [0.25] * 5
    assert DataConfig.parse(config.tree()) == config


def test_root_without_environment(monkeypatch):
    monkeypatch.delenv("FOVEATE_DATA", raising=False)
    assert DataConfig.parse(GOOD).root == Path("data")


def test_paths_are_expanded(monkeypatch):
    monkeypatch.setenv("PLACE", "/there")
    assert DataConfig.parse({**GOOD, "root": "$PLACE/x"}).root == Path("/there/x")
    assert DataConfig.parse({**GOOD, "root": "~/x"}).root == Path.home() / "x"


def test_names_that_yaml_takes_for_numbers_are_names():
    """Codes of land cover, and images called 1.tif."""
    classes = [{"name": 10, "color": "#000000"}, {"name": "water", "color": "#0000ff"}]
    config = DataConfig.parse(
        {
            "folder": "scenes",
            "classes": classes,
            "vectors": {"classes": {40: "water", 50: "ignore"}, "unlabelled": 10},
            "split": {"train": [1, "b"], "val": [2]},
            "class_sampling": {10: 2},
        }
    )
    assert config.class_names == ["10", "water"]
    assert config.vectors.classes == {"40": "water", "50": "ignore"}
    assert (config.split.train, config.split.val) == (["1", "b"], ["2"])
    assert config.class_sampling == {"10": 2}


@pytest.mark.parametrize("color", ["#0A0b0c", [10, 11, 12]])
def test_colours(color):
    item = ClassConfig.parse({"name": "a", "color": color})
    assert item.color == "#0a0b0c"
    assert item.rgb == (10, 11, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clases": []}, "unknown key 'clases'; did you mean 'classes'"),
        ({"split": {"vall": 0.1}}, "did you mean 'val'"),
        ({"manifest": "a.csv"}, "exactly one of 'folder' and 'manifest'"),
        ({"folder": None}, "exactly one of 'folder' and 'manifest'"),
        ({"classes": CLASSES[:1]}, "at least 2"),
        ({"classes": [CLASSES[0], CLASSES[0]]}, "must be unique"),
        ({"classes": [{"name": "a", "color": "red"}, CLASSES[0]]}, "color"),
        ({"classes": [{"name": "a", "color": [1, 2, 256]}, CLASSES[0]]}, "0 to 255"),
        ({"classes": [{"name": "a", "color": [1, 2]}, CLASSES[0]]}, "three numbers"),
        ({"label_map": {9: 2}}, r"label_map maps to \[2\]; allowed are \[0, 1, 255\]"),
        ({"mean": [0.1]}, "mean needs 3 values"),
        ({"std": [0.1, 0, 1]}, "std must be positive"),
        ({"bands": [0, 1, 2]}, "counted from 1"),
        ({"class_sampling": {"sky": 1}}, r"names \['sky'\]"),
        ({"class_sampling": {"water": -1}}, "not be negative"),
        ({"balance": 1.5}, "less than or equal to 1"),
        ({"classes": [f"c{i}" for i in range(256)]}, r"at most 255 items .{,30}\(got .{,200}\.\.\.\)$"),
        ({"nodata": "no"}, r"^config: nodata: Input should be 'ignore' or a valid number.* \(got 'no'\)$"),
        ({"split": {"val": 2}}, r"split\.val: Input should be a valid list or less than 1 \(got 2\)"),
        ({"in_channels": 4, "augmentation": {"color_jitter": [0, 0, 0, 0.1]}}, "saturation and hue need in_channels 3"),
        ({"augmentation": {"color_jitter": [0, 0, 0, 0.6]}}, "hue, the fourth number, is at most 0.5"),
        ({"split": {"val": 0.5, "test": 0.5}}, "must be below 1"),
        ({"split": {"val_fraction": 0.5, "test_fraction": 0.5}}, "must be below 1"),
        ({"split": {"val": ["a"], "val_fraction": 0.5}}, "give a list or a share"),
        ({"split": {"val": 1.0}}, "less than 1"),
        ({"split": {"train": ["a"], "val_fraction": 0.5}}, "cannot be used with a train list"),
    ],
)
def test_bad_values(change, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig.parse({**GOOD, **change})
