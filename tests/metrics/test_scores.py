import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.membership import Exclusive, Overlapping
from foveate.metrics import confusion_matrix, permutation_p_value, scores_from
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
