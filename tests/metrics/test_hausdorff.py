import math
import warnings

import numpy as np
import pytest
import torch

from foveate.membership import Exclusive
from foveate.metrics import hausdorff_distances, mean_distances


def boundary(mask):
    """Pixels of the mask with a neighbour outside it, as (N, 2)."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def slow_distance(one, other):
    """Every boundary pixel against every other one."""
    pairs = np.linalg.norm(boundary(one)[:, None] - boundary(other)[None], axis=-1)
    return max(np.percentile(pairs.min(axis=0), 95), np.percentile(pairs.min(axis=1), 95))


def blobs(seed):
    rows, cols = np.mgrid[:40, :50]
    rng = np.random.default_rng(seed)
    discs = zip(rng.integers(5, 35, 4), rng.integers(5, 45, 4), rng.integers(2, 12, 4), strict=True)
    return sum((rows - r) ** 2 + (cols - c) ** 2 < radius**2 for r, c, radius in discs) > 0


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_distance_between_all_boundary_pixels(seed):
    guess, truth = blobs(seed), blobs(seed + 10)
    result = hausdorff_distances(torch.from_numpy(guess * 1), torch.from_numpy(truth * 1), 2, Exclusive())
    assert result[1] == pytest.approx(slow_distance(guess, truth), rel=1e-5)


def test_a_shift_is_its_own_distance_and_a_grid_has_its_step():
    truth = torch.zeros(60, 60, dtype=torch.uint8)
    truth[20:40, 10:30] = 1
    guess = truth.roll(6, dims=1)
    assert hausdorff_distances(guess, truth, 2, Exclusive())[1] == pytest.approx(6)
    assert hausdorff_distances(guess[::2, ::2], truth[::2, ::2], 2, Exclusive(), step=2)[1] == pytest.approx(6)
    assert hausdorff_distances(truth, truth, 2, Exclusive()) == [0, 0]


def test_what_is_not_counted_does_not_count():
    truth = torch.zeros(30, 30, dtype=torch.uint8)
    truth[5:15, 5:15] = 1
    guess = truth.clone()
    guess[20:, 20:] = 1
    assert hausdorff_distances(guess, truth, 2, Exclusive())[1] > 5
    truth[18:, 18:] = 255
    assert hausdorff_distances(guess, truth, 2, Exclusive()) == [0, 0]


def test_a_class_in_only_one_of_both_is_undefined_and_said_so():
    truth, guess = torch.zeros(8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)
    guess[2:4, 2:4] = 1
    same, missing, absent = hausdorff_distances(guess, truth, 3, Exclusive())
    assert (math.isfinite(same), math.isinf(missing), math.isnan(absent)) == (True, True, True)
    distances = mean_distances([[2.0, math.inf, math.nan], [4.0, 5.0, math.nan]], ["a", "b", "c"], 1)
    assert [c.mean for c in distances.classes[:2]] == [3.0, 5.0]
    assert [(c.images, c.undefined) for c in distances.classes] == [(2, 0), (1, 1), (0, 0)]
    assert distances.mean == 4.0
    assert distances.tree()["classes"][2]["mean"] is None


@pytest.mark.parametrize("seed", range(3))
def test_it_is_monais(seed):
    monai = pytest.importorskip("monai.metrics")
    guess, truth = blobs(seed), blobs(seed + 20)
    result = hausdorff_distances(torch.from_numpy(guess * 1), torch.from_numpy(truth * 1), 2, Exclusive())[1]
    masks = (torch.from_numpy(mask)[None, None] for mask in (guess, truth))
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 warn about an argument that they pass to themselves.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        expected = monai.compute_hausdorff_distance(*masks, include_background=True, percentile=95)
    assert result == pytest.approx(float(expected[0, 0]), rel=1e-6)
