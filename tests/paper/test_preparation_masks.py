import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preparation_toys import PALETTE, coloured, picture, png

from foveate.errors import ConfigError, DatasetError
from foveate.geometry import IGNORE
from foveate.paper.preparation import Gleason2019
from foveate.paper.preparation.data_sets import fuse, majority, staple
from foveate.paper.preparation.scenes import count_values, mask_by_colour, mask_by_value

IDS = {colour: index for index, colour in enumerate(PALETTE)}


def test_values_through_a_table(tmp_path):
    values = np.arange(256).reshape(16, 16)
    mask = mask_by_value(png(tmp_path / "a.png", values), {3: 0, 4: 1, 7: IGNORE})
    assert mask.ids.ravel().tolist() == [{3: 0, 4: 1}.get(value, IGNORE) for value in range(256)]
    assert mask.odd == {f"value {value} is not a label; ignored": 1 for value in range(256) if value not in (3, 4, 7)}


def test_pure_colours_are_not_odd(tmp_path):
    mask = mask_by_colour(png(tmp_path / "a.png", coloured(PALETTE, (4, 70))), IDS)
    assert np.array_equal(mask.ids[0], np.repeat(np.arange(7), 10))
    assert not mask.odd


def test_colours_off_the_palette_are_counted_and_named(tmp_path):
    pixels = coloured(PALETTE, (4, 70)).copy()
    pixels[:, 0, :3] = [[255], [0], [0]]  # red is in no palette
    pixels[:, 1, :2] = [[130], [126], [255]]  # nearly magenta: rangeland
    pixels[:, 2, 5] = [3, 250, 250]  # still urban
    mask = mask_by_colour(png(tmp_path / "a.png", pixels), IDS)
    assert mask.ids[0, :4].tolist() == [IGNORE] * 3 + [0]
    assert mask.ids[1, :3].tolist() == [2, 2, 0]
    assert mask.ids[2, 5] == 0
    assert mask.odd == {
        "colour (255, 0, 0) is not in the palette, ignored": 3,
        "colour (130, 126, 255) taken as (255, 0, 255)": 2,
        "colour (3, 250, 250) taken as (0, 255, 255)": 1,
    }


def test_of_very_many_colours_only_the_commonest_are_named(tmp_path):
    pixels = np.full((3, 10, 10), 255)
    pixels[2, 1:] = np.arange(90).reshape(9, 10) % 40 + 1
    mask = mask_by_colour(png(tmp_path / "a.png", pixels), IDS)
    assert sum(mask.odd.values()) == 90
    assert len(mask.odd) == 6
    assert mask.odd["other colours taken as the nearest of 0 and 255"] == 90 - 5 * 3


def test_a_file_of_other_bands_is_refused(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png has 3 bands of uint8; labels of this data set have 1"):
        mask_by_value(path, {0: 0})
    with pytest.raises(DatasetError, match="labels of this data set have 3"):
        mask_by_colour(png(tmp_path / "b.png", np.zeros((4, 4))), IDS)


def test_counts():
    values = np.random.default_rng(0).integers(0, 256, (1100, 1100)).astype(np.uint8)
    assert np.array_equal(count_values(values), np.bincount(values.ravel(), minlength=256))


votes = st.lists(st.lists(st.sampled_from([0, 1, 2, 3, IGNORE]), min_size=5, max_size=5), min_size=1, max_size=6)


@given(votes)
def test_the_majority_is_the_only_most_common_vote(experts):
    fused = majority([np.array([expert], np.uint8) for expert in experts], 4)
    for column, result in zip(zip(*experts, strict=True), fused[0], strict=True):
        counts = Counter(vote for vote in column if vote != IGNORE).most_common()
        tie = not counts or (len(counts) > 1 and counts[0][1] == counts[1][1])
        assert result == (IGNORE if tie else counts[0][0])


@pytest.mark.parametrize("fusion", ["majority", "staple"])
def test_experts_who_agree_are_believed(fusion):
    agreed = np.repeat([0, 3, 1, IGNORE], 25).reshape(10, 10).astype(np.uint8)
    for count in (1, 2, 5):
        assert np.array_equal(fuse([agreed] * count, 4, fusion), agreed)


def test_staple_learns_whom_to_trust():
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 60), np.uint8)
    truth[10:40, 10:30] = 2
    truth[45:] = 1
    shares = [0.05, 0.05, 0.6, 0.6, 0.6]
    maps = [np.where(rng.random(truth.shape) < wrong, rng.integers(0, 4, truth.shape), truth) for wrong in shares]
    wrong = [(fused != truth).mean() for fused in (staple(maps, 4), majority(maps, 4))]
    assert wrong[0] < wrong[1]


def test_staple_names_the_extra_when_its_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ConfigError, match=r"foveate\[prepare\]"):
        Gleason2019(fusion="staple")
    Gleason2019(fusion="majority")
