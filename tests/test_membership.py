"""How classes are read off scores and labels."""

import math

import numpy as np
import pytest
import torch

from foveate.membership import Exclusive, Overlapping

LOGITS = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))
KINDS = [Exclusive(), Overlapping()]


def plain(membership, logits):
    return logits.softmax(0) if isinstance(membership, Exclusive) else logits.sigmoid()


@pytest.mark.parametrize("membership", KINDS)
def test_logits_come_back_from_probabilities(membership):
    shares = membership.probabilities(LOGITS, dim=0)
    torch.testing.assert_close(shares, plain(membership, LOGITS))
    back = membership.as_logits(shares.clone())
    torch.testing.assert_close(membership.probabilities(back, dim=0), shares)
    assert torch.equal(membership.decided(back), membership.decided(LOGITS))
    sure = membership.as_logits(torch.tensor([0.0, 1.0]).view(2, 1, 1))
    assert sure.isfinite().all()


@pytest.mark.parametrize("membership", KINDS)
def test_a_mixture_is_the_weighted_mean_of_probabilities(membership):
    looks = torch.stack([LOGITS, LOGITS.flip(0), 3 * LOGITS])
    weights = torch.tensor([0.2, 0.5, 0.3]).view(3, 1, 1, 1)
    mixed = membership.mixed(looks, weights.log(), over=0, dim=1)
    expected = sum(weight * plain(membership, one) for weight, one in zip(weights, looks, strict=True))
    torch.testing.assert_close(membership.probabilities(mixed, dim=0), expected)
    alone = membership.mixed(looks, torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1).log(), over=0, dim=1)
    torch.testing.assert_close(plain(membership, alone), plain(membership, looks[1]))


def test_entropy_and_confidence_of_one_class():
    shares = LOGITS.softmax(0)
    torch.testing.assert_close(Exclusive().entropy(LOGITS, dim=0), -(shares * shares.log()).sum(0))
    torch.testing.assert_close(Exclusive().confidence(shares), shares.max(0).values)
    assert float(Exclusive().entropy(torch.zeros(1, 5))) == pytest.approx(Exclusive().most_entropy(5))


def test_entropy_and_confidence_of_overlapping_classes_are_those_of_each_yes_or_no():
    yes = LOGITS.double().sigmoid()
    expected = -(yes * yes.log() + (1 - yes) * (1 - yes).log()).mean(0)
    torch.testing.assert_close(Overlapping().entropy(LOGITS.double(), dim=0), expected)
    torch.testing.assert_close(Overlapping().confidence(yes), torch.maximum(yes, 1 - yes).min(0).values)
    assert float(Overlapping().entropy(torch.zeros(1, 5))) == pytest.approx(math.log(2))
    certain = torch.tensor([[1e9, -1e9, math.inf, -math.inf]])
    assert float(Overlapping().entropy(certain)) == 0


def test_a_decision_holds_every_class_above_one_half():
    label = Overlapping().decided(LOGITS)
    assert label.dtype == torch.int32
    for number, mask in enumerate(Overlapping().planes(label, 5)):
        assert torch.equal(mask, LOGITS[number] > 0)
    many = torch.ones(31, 1, 1)
    assert all(bool(mask) for mask in Overlapping().planes(Overlapping().decided(many), 31))
    assert int(Overlapping().decided(many)) != Overlapping().ignore_index


def test_what_is_not_counted_belongs_to_no_class():
    labels = np.array([[-1, 0], [3, 4]], np.int32)
    assert [mask.tolist() for mask in Overlapping().planes(labels, 3)] == [
        [[False, False], [True, False]],
        [[False, False], [True, False]],
        [[False, False], [False, True]],
    ]
    answers = Overlapping().answers(torch.from_numpy(labels)[None], 3)
    assert answers.tolist() == [[[[-1, 0], [1, 0]], [[-1, 0], [1, 0]], [[-1, 0], [0, 1]]]]


def test_pictures_show_every_class_of_a_pixel():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    labels = np.zeros((8, 40), np.int32)
    labels[:, 10:20], labels[:, 20:30], labels[:, 30:] = 0b101, 0b010, -1
    picture = Overlapping().picture(labels, colors)
    assert (picture[:, :10] == 244).all()
    assert (picture[:, 20:30] == colors[1]).all()
    assert (picture[:, 30:] == 128).all()
    # Stripes of the two classes, of equal area.
    first, second = ((picture[:, 10:20] == color).all(axis=2) for color in (colors[0], colors[2]))
    assert (first | second).all()
    assert 0.35 < first.mean() < 0.65
    ids = np.array([[0, 2, 255]], np.uint8)
    assert Exclusive().picture(ids, colors).tolist() == [[[200, 0, 0], [0, 0, 200], [128, 128, 128]]]


@pytest.mark.parametrize("membership", KINDS)
def test_counts_by_group(membership):
    rng = np.random.default_rng(0)
    choices = [0, 1, 2, 255] if isinstance(membership, Exclusive) else [-1, 0, 1, 2, 3, 6, 7]
    labels, groups = rng.choice(choices, (8, 9)).astype(membership.dtype), rng.integers(0, 4, (8, 9))
    counts = membership.counts(labels, groups, 4, 3)
    for group in range(4):
        inside = labels[groups == group]
        each = [int(mask.sum()) for mask in membership.planes(inside, 3)]
        assert counts[group].tolist() == [*each, int((inside == membership.ignore_index).sum())]
