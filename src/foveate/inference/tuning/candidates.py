"""Ways of looking that a budget can be spent on, for labelled images to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, TypeAlias

from foveate.geometry import Size
from foveate.inference.planning.pyramid import PyramidGrid, PyramidLook, smallest_first
from foveate.inference.predicting.fusion import Fusion

Looks: TypeAlias = tuple[PyramidLook, ...]

KEEPS = (0.5, 1.0)


class Candidate(NamedTuple):
    """A way of looking.

    Attributes:
        looks: smallest kept part first.
        fusion: how much each of them counts.
    """

    looks: Looks
    fusion: Fusion

    @property
    def is_fixed(self) -> bool:
        """Whether this is one fixed field of view."""
        return len(self.looks) == 1

    def __str__(self) -> str:
        return " + ".join(f"{view} px" + (f" (central {keep:g})" if keep < 1 else "") for view, keep in self.looks)


def least_passes(looks: Looks, image: Size) -> int:
    """Passes that looking at an image once with the widest of the looks costs."""
    return len(PyramidGrid.of(image, looks).roots.top)


def ways_of_looking(views: Sequence[int], target: int | None = None) -> list[Looks]:
    """Every field of view alone, whole and with a margin; and closer looks after every wider one.

    The closer looks are whole windows, windows with a margin, or first the ones and then, where it is most uncertain,
    the others. Or the same view once more, with a wider margin, alone or beside a narrower one:
    where a place is uncertain, surroundings help as detail does.

    Args:
        views: the fields of view in use, ascending, level-0 pixels.
        target: side of a target, level-0 pixels; the narrowest view by default.

    Returns:
        Looks, smallest kept part first.
    """
    # The central part over one target is what one pass a target uses.
    centre = {view: (target or views[0]) / view for view in views}
    keeps = {view: sorted({centre[view], *KEEPS}) for view in views}
    alone = [[(view, keep)] for view in views for keep in keeps[view]]
    again = [[(view, few), (view, more)] for view in views for few, more in combinations(keeps[view], 2)]
    pairs = [
        [*((narrow, keep) for keep in closely), (wide, whole)]
        for narrow, wide in combinations(views, 2)
        for whole in KEEPS
        for closely in ((0.5,), (1.0,), (0.5, 1.0))
    ]
    both = [
        [(narrow, 0.5), (wide, centre[wide]), (wide, whole)]
        for narrow, wide in combinations(views, 2)
        for whole in KEEPS
        if centre[wide] < whole
    ]
    ways = (*alone, *again, *pairs, *both)
    return list(dict.fromkeys(smallest_first(looks) for looks in ways))
