"""The foveated rendering: as coarse as the network saw it, and where its choices differ most."""

import numpy as np
import pytest

from foveate.data.readers import ArrayReader
from foveate.geometry import Size, Window
from foveate.patches import ScaleSet
from foveate.reporting.report.page import value_picture
from foveate.reporting.report.pictures import compose, most_varied

SCALES = ScaleSet(8, (8, 32))


def test_each_cell_has_the_resolution_of_its_scale():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 96)).astype(np.uint8)
    window, chosen = Window(16, 32, 32, 64), np.arange(32).reshape(4, 8) % 2
    composed = compose(ArrayReader(pixels), window, chosen, SCALES, 8)
    part = pixels[:, 16:48, 32:96].astype(float)
    means = part.reshape(3, 8, 4, 16, 4).mean(axis=(2, 4)).repeat(4, axis=1).repeat(4, axis=2)
    wide = chosen.repeat(8, axis=0).repeat(8, axis=1) == 1
    assert composed.shape == (3, 32, 64)
    assert np.array_equal(composed[:, ~wide], part[:, ~wide])
    assert np.abs(composed[:, wide] - means[:, wide]).max() <= 0.51


def test_places_that_were_not_asked_for_are_sharp():
    pixels = np.random.default_rng(1).integers(0, 255, (1, 16, 16)).astype(np.uint8)
    composed = compose(ArrayReader(pixels), Window(0, 0, 16, 16), np.full((2, 2), -1), SCALES, 8)
    assert np.array_equal(composed, pixels)


@pytest.mark.parametrize("side", [Size(2, 3), Size(6, 7), Size(1, 1)])
def test_the_most_varied_part_is_found(side):
    chosen = np.random.default_rng(2).integers(-1, 3, (6, 7))
    row, col, variety = most_varied(chosen, 3, side)

    def entropy(top, left):
        part = chosen[top : top + side.height, left : left + side.width]
        shares = np.array([(part == s).sum() for s in range(3)]) / max(1, (part >= 0).sum())
        return -sum(p * np.log(p) for p in shares if p)

    places = [(r, c) for r in range(7 - side.height) for c in range(8 - side.width)]
    assert variety == pytest.approx(max(entropy(*place) for place in places))
    assert variety == pytest.approx(entropy(row, col))


def test_chosen_views_have_the_colours_of_the_map():
    picture = value_picture(np.array([[64, 256, np.nan]]), 64, 256)
    assert picture.tolist() == [[[68, 1, 84], [253, 231, 36], [127, 127, 127]]]
