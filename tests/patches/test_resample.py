import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.geometry import Size, Window
from foveate.patches.extraction import area_taps, reflect, resample, to_dtype, window_taps
from oracles import area_mean, mirrored

side = st.integers(1, 12)


@given(st.integers(-20, 20), st.integers(-20, 20), side, side, side, side, st.integers(1, 9), st.integers(1, 9))
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
