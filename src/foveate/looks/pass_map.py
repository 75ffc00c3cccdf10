"""A map of the passes of a plan: which looks were made where, small enough to keep for images of any size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Window, ceil_div
from foveate.patches.extraction import Windows


class MappedLook(NamedTuple):
    """One way of looking.

    Attributes:
        view: field of view, level-0 pixels.
        side: of the central part of its windows that is used, level-0 pixels.
    """

    view: int
    side: int


@dataclass(frozen=True, slots=True)
class PassMap:
    """The grid on which the used parts of all passes begin.

    A pixel of the map has a band for every look: how much of a pass it is whose used part has its upper left corner at
    the pixel's, in [0, 1]; 0 where there is no such pass, below 1 where one place is seen at several scales.

    Attributes:
        step: side of a pixel of the map, level-0 pixels.
        looks: by band.
    """

    step: int
    looks: tuple[MappedLook, ...]

    def pixels_of(self, block: Window) -> Window | None:
        """The pixels of the map whose upper left corners lie in a block of the image; None where there are none."""
        top, left = ceil_div(block.top, self.step), ceil_div(block.left, self.step)
        rows, cols = ceil_div(block.bottom, self.step) - top, ceil_div(block.right, self.step) - left
        return Window(top, left, rows, cols) if rows and cols else None

    def shares(self, block: Window, made: Iterable[tuple[Windows, Tensor]]) -> Tensor:
        """The map of a block.

        Args:
            block: level-0 pixels.
            made: N used parts, and what each look has of them (N, L) in [0, 1]; those that begin elsewhere are left
                out, as they belong to the map of another block.

        Returns:
            (L, rows, cols) in [0, 1]; without rows and columns where there are no pixels.
        """
        pixels = self.pixels_of(block)
        if pixels is None:
            return torch.zeros(len(self.looks), 0, 0)
        result = torch.zeros(len(self.looks), pixels.height, pixels.width)
        for (tops, lefts, _), parts in made:
            rows, cols = tops // self.step - pixels.top, lefts // self.step - pixels.left
            inside = (rows >= 0) & (rows < pixels.height) & (cols >= 0) & (cols < pixels.width)
            result[:, rows[inside], cols[inside]] += parts[inside].T
        return result
