"""Colours that people who do not see all colours can tell apart."""

from __future__ import annotations

from functools import cache

from matplotlib import colormaps
from matplotlib.colors import to_hex

# Okabe and Ito, for classes without a colour of their own.
CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
WRONG = "#e4004f"
_STOPS = 9


def category(number: int) -> str:
    """A colour for a class without one; after eight they repeat."""
    return CATEGORIES[number % len(CATEGORIES)]


@cache
def stops(name: str) -> tuple[str, ...]:
    """Colours of one of matplotlib's maps, evenly spaced: those of viridis, cividis and magma rise in lightness."""
    colours = colormaps[name]
    return tuple(to_hex(colours(number / (_STOPS - 1))) for number in range(_STOPS))
