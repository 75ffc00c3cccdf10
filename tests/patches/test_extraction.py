"""Patches and overviews are means over their footprints, whatever they are read from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import GeometryError
from foveate.geometry import Size, Window
from foveate.patches.extraction import (
    Region,
    Windows,
    area_taps,
    extract_patches,
    reflect,
    region_downsample,
    region_of,
    region_window,
    resample,
    to_dtype,
    window_taps,
)
from oracles import area_mean, mirrored

SIDES = st.integers(1, 12)


@given(st.integers(-20, 20), st.integers(-20, 20), SIDES, SIDES, SIDES, SIDES, st.integers(1, 9), st.integers(1, 9))
def test_a_resampled_window_is_the_mean_over_every_footprint(top, left, height, width, rows, cols, high, wide):
    image = np.random.default_rng(0).random((2, high, wide))
    taps = window_taps(Window(top, left, height, width), Size(rows, cols), Size(high, wide), Size(high, wide))
    source = torch.from_numpy(image[:, *taps.needed.within(Window.of(Size(high, wide)))])
    expected = area_mean(mirrored(image, top, left, height, width), rows, cols)
    np.testing.assert_allclose(resample(source, taps.rows, taps.cols).numpy(), expected, atol=1e-5)


@given(st.floats(-30, 30), st.floats(0.3, 9), st.integers(1, 20))
def test_weights_sum_to_one(start, step, count):
    taps = area_taps(torch.tensor(start, dtype=torch.float64), step, count)
    torch.testing.assert_close(taps.weight.sum(-1), torch.ones(count))


@given(st.integers(1, 9))
def test_reflection_is_that_of_numpy(length):
    expected = np.pad(np.arange(length), 4 * length, mode="symmetric")
    assert reflect(torch.arange(-4 * length, 5 * length), length).tolist() == expected.tolist()


def test_whole_pixels_are_copied_in_their_dtype():
    image = torch.arange(48, dtype=torch.uint8).view(1, 6, 8)
    taps = window_taps(Window(1, 2, 3, 4), Size(3, 4), Size(6, 8), Size(6, 8))
    assert torch.equal(resample(image[:, 1:4, 2:6], taps.rows, taps.cols), image[:, 1:4, 2:6])


def test_reflecting_and_downsampling_commute():
    image = torch.rand(1, 8, 8)
    half = torch.nn.functional.avg_pool2d(image, 2)
    window, out = Window(-4, 4, 12, 12), Size(6, 6)
    fine = window_taps(window, out, Size(8, 8), Size(8, 8))
    coarse = window_taps(window, out, Size(8, 8), Size(4, 4))
    one = resample(image[:, *fine.needed.within(Window(0, 0, 8, 8))], fine.rows, fine.cols)
    two = resample(half[:, *coarse.needed.within(Window(0, 0, 4, 4))], coarse.rows, coarse.cols)
    torch.testing.assert_close(one, two)


def test_means_are_rounded_not_truncated():
    assert to_dtype(torch.tensor([1.5, 1.49]), torch.uint8).tolist() == [2, 1]


@given(st.lists(st.tuples(st.integers(-30, 40), st.integers(-30, 40)), min_size=1, max_size=4), st.integers(8, 40))
def test_patches_are_the_anti_aliased_resize_of_their_windows(corners, side):
    image = np.random.default_rng(1).random((3, 23, 31))
    windows = Windows(*torch.tensor(corners).T, side)
    patches = extract_patches(region_of(torch.from_numpy(image), region_window(windows, 1), 1), windows, 8)
    for patch, (top, left) in zip(patches, corners, strict=True):
        expected = area_mean(mirrored(image, top, left, side, side), 8, 8)
        np.testing.assert_allclose(patch, expected, atol=1e-5)


@given(st.integers(-8, 12), st.integers(-8, 12), st.sampled_from([8, 16, 32, 64]))
def test_a_pyramid_gives_the_same_patches_on_whole_pixels(row, col, side):
    image = torch.rand(1, 64, 48)
    level = region_downsample(side / 8)
    windows = Windows(torch.tensor([row * level]), torch.tensor([col * level]), side)
    fine, coarse = (extract_patches(region_of(image, region_window(windows, q), q), windows, 8) for q in (1, level))
    torch.testing.assert_close(fine, coarse)


@given(st.integers(-20, 40), st.integers(-20, 40), st.sampled_from([16, 24, 40]))
def test_a_pyramid_keeps_a_slope_within_a_pixel(top, left, side):
    """Off whole pixels of the level, a patch differs from the exact mean by less than the level's own blur."""
    slope = torch.arange(4096.0).view(1, 1, -1).expand(1, 512, -1)
    windows = Windows(torch.tensor([top + 100]), torch.tensor([left + 100]), side)
    level = region_downsample(side / 8)
    fine, coarse = (extract_patches(region_of(slope, region_window(windows, q), q), windows, 8) for q in (1, level))
    assert (fine - coarse).abs().max() <= level / 2


def test_a_region_of_a_file_is_placed_by_its_corner():
    image = torch.rand(1, 32, 32)
    whole, part = Region(image, 0, 0, 1), Region(image[:, 5:, 7:], 5, 7, 1)
    windows = Windows(torch.tensor([9]), torch.tensor([12]), 12)
    assert torch.equal(extract_patches(whole, windows, 6), extract_patches(part, windows, 6))


def test_bytes_stay_bytes_where_nothing_is_averaged():
    region = Region(torch.arange(64, dtype=torch.uint8).view(1, 8, 8), 0, 0, 1)
    patch = extract_patches(region, Windows(torch.tensor([2]), torch.tensor([1]), 4), 4)
    assert patch.dtype == torch.uint8
    assert torch.equal(patch[0], region.pixels[:, 2:6, 1:5])


def test_a_region_that_is_too_coarse_is_refused():
    with pytest.raises(GeometryError, match="read it at 2"):
        extract_patches(Region(torch.rand(1, 8, 8), 0, 0, 4), Windows(torch.tensor([0]), torch.tensor([0]), 16), 8)


def test_a_window_outside_its_region_is_refused():
    with pytest.raises(GeometryError, match="outside its region"):
        extract_patches(Region(torch.rand(1, 8, 8), 0, 0, 1), Windows(torch.tensor([5]), torch.tensor([0]), 4), 4)


@pytest.mark.parametrize(("downsample", "expected"), [(1, 1), (1.99, 1), (2, 2), (3.9, 2), (8, 8)])
def test_region_downsample_is_the_largest_power_of_two_below(downsample, expected):
    assert region_downsample(downsample) == expected


def test_region_window_holds_all_windows():
    window = region_window(Windows(torch.tensor([-3, 10]), torch.tensor([5, 6]), 9), 4)
    assert (window.top, window.left, window.bottom, window.right) == (-4, 4, 20, 16)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 19)), min_size=1, max_size=5), st.booleans())
def test_whole_pixels_are_copied_as_they_are(corners, as_bytes):
    pixels = torch.randint(0, 256, (3, 20, 27), dtype=torch.uint8)
    pixels = pixels if as_bytes else pixels.double()
    patches = extract_patches(Region(pixels, 0, 0, 1), Windows(*torch.tensor(corners).T, 8), 8)
    assert torch.equal(patches, torch.stack([pixels[:, top : top + 8, left : left + 8] for top, left in corners]))
    patches.zero_()
    assert pixels.any()  # a copy, not a view
