"""The pyramid cover: the widest windows tile the image, and inside each the narrower ones tile what it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from foveate.errors import ConfigError
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.patches.extraction import Windows


@dataclass(frozen=True, slots=True)
class PyramidGrid:
    """Where the passes of each level are used: disjoint supports, nested grids with a corner at the image's.

    Attributes:
        image: size of the image.
        sides: side of the supports of each level, ascending, each a multiple of the one before, level-0 pixels.
    """

    image: Size
    sides: tuple[int, ...]

    @classmethod
    def of(cls, image: Size, views: Sequence[int], keep: float) -> PyramidGrid:
        """The grids of some fields of view.

        Args:
            image: size of the image.
            views: ascending, each a multiple of the one before, level-0 pixels.
            keep: side of the central part of a window that is used, as a share of its side, in (0, 1].

        Raises:
            ConfigError: when the fields of view are no multiples.
        """
        for narrow, wide in pairwise(views):
            if wide % narrow:
                raise ConfigError(
                    f"the planner pyramid needs fields of view that are multiples of each other, got {list(views)}; "
                    f"use for example {[views[0] * 2**k for k in range(len(views))]}, or inference.planner=per_target"
                )
        narrowest = max(1, round(keep * views[0]))
        return cls(image, tuple(narrowest * (view // views[0]) for view in views))

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


def root_side(config: InferenceConfig, views: Sequence[int]) -> int:
    """Side of the supports that a planner looks at first everywhere, by its fields of view; 1 where it has none."""
    return PyramidGrid.of(Size(1, 1), views, config.keep).sides[-1] if config.planner == "pyramid" else 1
