"""Is a difference between two methods more than the luck of their seeds?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import mean


def permutation_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Exact two-sided permutation test of equal means.

    Args:
        first: one value per seed; at most about ten, as all ways to split the values are tried.
        second: the same of the other method.

    Returns:
        Share of the ways to split all values into two groups of these sizes whose means differ at least as much, in
        (0, 1]. Three seeds against three can reach 0.1, two against two only 1/3, one against one nothing.

    Source: Fisher 1935; Pitman 1937.
    """
    values = [*first, *second]
    observed = abs(mean(first) - mean(second))
    rounding = 1e-12 * max(1.0, *map(abs, values))
    splits = list(combinations(range(len(values)), len(first)))
    total = sum(values)
    as_far = 0
    for split in splits:
        part = sum(values[i] for i in split)
        rest = (total - part) / len(second)
        as_far += abs(part / len(first) - rest) >= observed - rounding
    return as_far / len(splits)
