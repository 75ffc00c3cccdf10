"""Every estimator, in training: what its steps learn stays what it was, and one of a user's own trains like ours."""

from typing import Literal

import pytest
from training_toys import ON_CPU, ToyData, toy_config, toy_task

from foveate.foveation.estimator import Learned, one_hot_argmax, one_look
from foveate.foveation.estimators import FixedScale, GumbelSoftmax, Mixture
from foveate.paper import ScoreFunction, SoftExpectation, StraightThroughArgmax
from foveate.training.fit import fit
from foveate.training.history import read_history

# Losses of three steps of the toy, of the version before estimators made their passes themselves.
KNOWN = [
    (FixedScale(index=1, own_window=0.5), [1.331483, 0.972489, 0.8492247]),
    (SoftExpectation(), [0.8537325, 0.6362851, 0.5490562]),
    (StraightThroughArgmax(), [0.8710443, 0.6552116, 0.5838835]),
    (GumbelSoftmax(), [0.8357833, 0.6773347, 0.5714253]),
    (GumbelSoftmax(name="gumbel_soft"), [0.8542519, 0.6624163, 0.565268]),
    (ScoreFunction(), [0.8357833, 0.6665694, 0.5700349]),
    (Mixture(), [1.710222, 1.341022, 1.148924]),
]


def losses(estimator, folder):
    task = toy_task(toy_config(steps=3), estimator)
    read = estimator.reads(2).scales
    fit(task, ToyData(3, scales=len(read)), folder, processes=ON_CPU, progress=False)
    return [row["train/loss"] for row in read_history(folder / "metrics.csv") if "train/loss" in row]


@pytest.mark.parametrize(("estimator", "known"), KNOWN, ids=[repr(estimator) for estimator, _ in KNOWN])
def test_a_step_learns_what_it_learned_before(estimator, known, tmp_path):
    assert losses(estimator, tmp_path) == pytest.approx(known, rel=1e-4)


class Own(Learned):
    name: Literal["own"] = "own"

    def weights(self, logits, draw):
        probabilities = logits.softmax(dim=-1)
        return one_hot_argmax(logits) + (probabilities - probabilities.detach())

    def looks(self, logits):
        return one_look(one_hot_argmax(logits))


def test_an_estimator_of_ones_own_trains_like_the_one_it_copies(tmp_path):
    own, ours = (losses(one, tmp_path / one.name) for one in (Own(), StraightThroughArgmax(name="mode_plain")))
    assert own == ours
