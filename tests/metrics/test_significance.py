import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.metrics.significance import permutation_p_value

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
