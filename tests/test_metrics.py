"""Scores by the definitions, Hausdorff distances by brute force, cells one by one."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.membership import Exclusive, Overlapping
from foveate.metrics import (
    confusion_matrix,
    hausdorff_distances,
    iou_per_cell,
    loss_per_cell,
    mean_distances,
    permutation_p_value,
    scores_from,
)
from oracles import confusion


@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_streamed_matrix_is_the_obvious_one(seed, batches):
    rng = np.random.default_rng(seed)
    metric, expected = confusion_matrix(3, Exclusive()), np.zeros((3, 3), int)
    for _ in range(batches):
        label, guess = rng.choice([0, 1, 2, 255], (4, 5)), rng.integers(0, 3, (4, 5))
        metric.update(torch.from_numpy(guess), torch.from_numpy(label))
        expected += confusion(label, guess, 3, 255)
    assert metric.compute().tolist() == expected.tolist()


def test_known_answer():
    scores = scores_from(torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), ["a", "b", "c"])
    a, b, c = scores.classes
    assert (a.iou, a.dice, a.precision, a.recall) == pytest.approx((6 / 9, 12 / 15, 6 / 7, 6 / 8))
    assert b.iou == pytest.approx(3 / 6)
    assert math.isnan(c.iou)
    assert scores.absent == ("c",)
    assert scores.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert scores.pixel_accuracy == pytest.approx(9 / 12)
    assert scores.tree()["classes"][2]["iou"] is None


def test_a_class_that_is_only_predicted_is_absent_and_costs_recall():
    scores = scores_from(torch.tensor([[6, 2], [0, 0]]), ["a", "b"])
    assert scores.absent == ("b",)
    assert scores.miou == pytest.approx(6 / 8)


values = st.lists(st.floats(0, 1), min_size=1, max_size=4)


def test_complete_separation_of_three_seeds_is_one_split_and_its_mirror_of_twenty():
    assert permutation_p_value([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]) == pytest.approx(2 / 20)


def test_two_or_one_seeds_tell_nothing():
    assert permutation_p_value([0.1, 0.2], [0.8, 0.9]) == pytest.approx(1 / 3)
    assert permutation_p_value([0.1], [0.9]) == 1


def test_the_same_values_are_no_difference():
    assert permutation_p_value([0.3, 0.5, 0.4], [0.4, 0.3, 0.5]) == 1


@given(values, values)
def test_it_is_symmetric_and_a_probability(a, b):
    p = permutation_p_value(a, b)
    assert 0 < p <= 1
    assert p == pytest.approx(permutation_p_value(b, a))


def test_overlapping_classes_have_counts_and_scores_of_their_own():
    rng = np.random.default_rng(0)
    label, guess = rng.integers(0, 4, (2, 6, 7)).astype(np.int32), rng.integers(0, 4, (2, 6, 7)).astype(np.int32)
    label[0, :3] = -1
    metric = confusion_matrix(2, Overlapping())
    metric.update(*(Overlapping().answers(torch.from_numpy(one), 2) for one in (guess, label)))
    counts, counted = metric.compute(), label >= 0
    scores = scores_from(counts, ["a", "b"])
    for k, found in enumerate(scores.classes):
        true, said = (one[counted] >> k & 1 == 1 for one in (label, guess))
        assert counts[k].tolist() == [
            [(~true & ~said).sum(), (~true & said).sum()],
            [(true & ~said).sum(), (true & said).sum()],
        ]
        assert found.iou == pytest.approx((true & said).sum() / (true | said).sum())
        assert found.recall == pytest.approx((true & said).sum() / true.sum())
        assert found.pixels == true.sum()
    right = [(label[counted] >> k & 1) == (guess[counted] >> k & 1) for k in range(2)]
    assert scores.pixel_accuracy == pytest.approx(np.mean(right))
    assert scores.miou == pytest.approx(np.mean([c.iou for c in scores.classes]))


IGNORED = 255


def cells_of(height, width, cell):
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            yield np.s_[top : top + cell, left : left + cell]


def slow_loss(logits, labels, cell):
    log_probabilities = logits.log_softmax(dim=0)
    for place in cells_of(*labels.shape, cell):
        chosen = [
            -float(log_probabilities[:, *place][label, row, col])
            for (row, col), label in np.ndenumerate(labels[place].numpy())
            if label != IGNORED
        ]
        yield np.mean(chosen) if chosen else np.nan


def slow_iou(guess, labels, cell, classes):
    for place in cells_of(*labels.shape, cell):
        counted = labels[place] != IGNORED
        ious = []
        for c in range(classes):
            one, other = (guess[place] == c) & counted, (labels[place] == c) & counted
            if (one | other).any():
                ious.append(float((one & other).sum() / (one | other).sum()))
        yield np.mean(ious) if ious else np.nan


@pytest.mark.parametrize(("height", "width", "cell"), [(16, 24, 8), (13, 22, 5), (3, 4, 8), (5, 5, 1)])
def test_every_cell_has_its_own_loss_and_iou(height, width, cell):
    rng = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, height, width, generator=rng)
    labels = torch.randint(0, 5, (height, width), generator=rng)
    labels[labels == 4] = IGNORED
    labels[:cell, :cell] = IGNORED
    guess = logits.argmax(dim=0)
    loss, iou = (
        loss_per_cell(logits, labels, cell, Exclusive(IGNORED)),
        iou_per_cell(guess, labels, cell, 4, Exclusive(IGNORED)),
    )
    assert loss.shape == iou.shape == (-(-height // cell), -(-width // cell))
    np.testing.assert_allclose(loss.flatten(), list(slow_loss(logits, labels, cell)), rtol=1e-5)
    np.testing.assert_allclose(iou.flatten(), list(slow_iou(guess, labels, cell, 4)), rtol=1e-5)
    assert torch.isnan(loss[0, 0])
    assert torch.isnan(iou[0, 0])


def test_log_probabilities_and_logits_have_the_same_loss():
    logits, labels = torch.randn(3, 9, 9), torch.randint(0, 3, (9, 9))
    one, other = (
        loss_per_cell(values, labels, 4, Exclusive(IGNORED)) for values in (logits, logits.log_softmax(dim=0))
    )
    torch.testing.assert_close(one, other)


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
