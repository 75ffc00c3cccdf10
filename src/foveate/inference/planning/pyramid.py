"""The pyramid cover: the widest windows tile the image, and inside each the narrower ones tile what it covers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.errors import ConfigError
from foveate.foveation.estimators import Estimator
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.patches.extraction import Windows


class PyramidLook(NamedTuple):
    """One way of looking.

    Attributes:
        view: field of view, level-0 pixels.
        keep: side of the central part of its windows that is used, as a share of the view, in (0, 1].
    """

    view: int
    keep: float


def looks_of(config: InferenceConfig, views: Sequence[int]) -> tuple[PyramidLook, ...]:
    """The looks of the pyramid planner, smallest kept part first.

    Args:
        config: of inference.
        views: the fields of view in use, level-0 pixels.

    Raises:
        ConfigError: for a look at another field of view.
    """
    # Closer looks go to the uncertain places, so the margin is theirs; what wide windows say at their rims stands less.
    given = config.looks or ((views[0], config.keep), *((view, 1.0) for view in views[1:]))
    for view, _ in given:
        if view not in views:
            raise ConfigError(f"inference.looks names a field of view of {view}; the model's are {list(views)}")
    return smallest_first(given)


def smallest_first(looks: Iterable[tuple[int, float]]) -> tuple[PyramidLook, ...]:
    """Looks in the order of their kept parts, and of equal ones in that of their fields of view."""
    return tuple(sorted((PyramidLook(*look) for look in looks), key=lambda look: (look.view * look.keep, look.view)))


@dataclass(frozen=True, slots=True)
class PyramidGrid:
    """Where the passes of each look are used: disjoint supports, nested grids with a corner at the image's.

    Attributes:
        image: size of the image.
        sides: side of the supports of each look, ascending, each a multiple of the one before, level-0 pixels.
    """

    image: Size
    sides: tuple[int, ...]

    @classmethod
    def of(cls, image: Size, looks: Sequence[PyramidLook]) -> PyramidGrid:
        """The grids of some looks; a support is the largest multiple of the one before within its kept part.

        Args:
            image: size of the image.
            looks: smallest kept part first.
        """
        return cls(image, cls.sides_of(looks))

    @staticmethod
    def sides_of(looks: Sequence[PyramidLook]) -> tuple[int, ...]:
        """Side of the supports of each look, whatever the image."""
        sides = [max(1, round(looks[0].keep * looks[0].view))]
        for look in looks[1:]:
            # Rounded parts of doubling views may miss a multiple by a pixel.
            sides.append(max(1, int(look.keep * look.view + 1) // sides[-1]) * sides[-1])
        return tuple(sides)

    @property
    def roots(self) -> Windows:
        """All of the widest supports, row by row."""
        return self.roots_in(Window.of(self.image))

    def roots_in(self, block: Window) -> Windows:
        """The widest supports that meet a block inside the image."""
        side = self.sides[-1]
        tops = torch.arange(block.top // side * side, block.bottom, side)
        lefts = torch.arange(block.left // side * side, block.right, side)
        grid = torch.cartesian_prod(tops, lefts).reshape(-1, 2)
        return Windows(grid[:, 0], grid[:, 1], side)

    def parts(self, level: int) -> int:
        """Supports of a level in a row of one widest support."""
        return self.sides[-1] // self.sides[level]

    def inside(self, roots: Windows, level: int) -> Windows:
        """The supports of a level that tile each of N widest ones: (N * parts ** 2), root by root, row by row."""
        side, steps = self.sides[level], torch.arange(self.parts(level))
        shape = (len(roots.top), len(steps), len(steps))
        tops = (roots.top[:, None, None] + side * steps[:, None]).expand(shape)
        lefts = (roots.left[:, None, None] + side * steps).expand(shape)
        return Windows(tops.flatten(), lefts.flatten(), side)


def share_inside(windows: Windows, area: Window) -> Tensor:
    """Share of each window (N,) that lies inside an area, in [0, 1]."""
    rows = (windows.top + windows.side).clamp(max=area.bottom) - windows.top.clamp(min=area.top)
    cols = (windows.left + windows.side).clamp(max=area.right) - windows.left.clamp(min=area.left)
    return rows.clamp(min=0) * cols.clamp(min=0) / windows.side**2


def uses_pyramid(config: InferenceConfig, estimator: Estimator) -> bool:
    """Whether the pyramid planner is used: as configured, or as the estimator wants it."""
    return (config.planner or estimator.planner) == "pyramid"


def root_side(config: InferenceConfig, estimator: Estimator, views: Sequence[int]) -> int:
    """Side of the supports that a planner looks at first everywhere, by its fields of view; 1 where it has none."""
    return PyramidGrid.sides_of(looks_of(config, views))[-1] if uses_pyramid(config, estimator) else 1
