from itertools import pairwise

import pytest

from foveate.training.step import constant, cosine, learning_rate_factor, poly


@pytest.mark.parametrize("shape", [poly, cosine])
def test_falling_schedules_go_from_one_to_zero(shape):
    values = [shape(k / 20) for k in range(21)]
    assert values[0] == 1
    assert values[-1] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in pairwise(values))


def test_known_values():
    assert poly(0.5) == pytest.approx(0.5**0.9)
    assert cosine(0.5) == pytest.approx(0.5)
    assert constant(0.7) == 1


@pytest.mark.parametrize("name", ["poly", "cosine", "constant"])
def test_warm_up_rises_to_one_and_hands_over(name):
    factors = [learning_rate_factor(name, step, 10, warmup_steps=4) for step in range(11)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(factor > 0 for factor in factors[:10])
    assert factors[10] == pytest.approx(1 if name == "constant" else 0, abs=1e-12)


def test_a_finished_schedule_stays_at_its_end():
    assert learning_rate_factor("poly", 15, 10) == 0
    assert learning_rate_factor("cosine", 15, 10) == pytest.approx(0)
