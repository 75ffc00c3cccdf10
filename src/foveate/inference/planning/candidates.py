"""Ways of looking that a budget can be spent on, for validation images to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from foveate.geometry import Size
from foveate.inference.planning.pyramid import PyramidGrid, PyramidLook
from foveate.inference.predicting.fusion import closest_most

KEEPS = (0.5, 1.0)
# How much more a closer look counts than the next wider: a good deal, or all but alone.
FACTORS = (3.0, 50.0)


class Candidate(NamedTuple):
    """A way of looking.

    Attributes:
        looks: smallest kept part first.
        fusion: how much each of them counts.
    """

    looks: tuple[PyramidLook, ...]
    fusion: tuple[float, ...]

    def least_passes(self, image: Size) -> int:
        """Passes that looking at an image once with the widest of the looks costs."""
        return len(PyramidGrid.of(image, self.looks).roots.top)

    @property
    def is_fixed(self) -> bool:
        """Whether this is one fixed field of view."""
        return len(self.looks) == 1

    def __str__(self) -> str:
        return " + ".join(f"{view} px" + (f" (central {keep:g})" if keep < 1 else "") for view, keep in self.looks)


def candidates(views: Sequence[int]) -> list[Candidate]:
    """Every field of view alone, whole and with a margin; and closer looks after every wider one.

    The closer looks are whole windows, windows with a margin, or first the ones and then, where it is most uncertain,
    the others; or those of two scales.

    Args:
        views: the fields of view in use, ascending, level-0 pixels.
    """
    # The central part over one target is what one pass a target uses.
    alone = [[(view, keep)] for view in views for keep in sorted({views[0] / view, *KEEPS})]
    pairs = [
        [*((narrow, keep) for keep in keeps), (wide, 1.0)]
        for narrow, wide in combinations(views, 2)
        for keeps in ((0.5,), (1.0,), (0.5, 1.0))
    ]
    triples = [
        [(narrow, keep), (middle, 1.5 - keep), (wide, 1.0)]
        for narrow, middle, wide in combinations(views, 3)
        for keep in KEEPS
    ]
    fused = [_candidate(looks, factor) for looks in (*pairs, *triples) for factor in FACTORS]
    return [_candidate(looks, 1.0) for looks in alone] + fused


def _candidate(looks: list[tuple[int, float]], factor: float) -> Candidate:
    ordered = tuple(sorted((PyramidLook(*look) for look in looks), key=lambda look: (look.view * look.keep, look.view)))
    return Candidate(ordered, closest_most(len(ordered), factor))
