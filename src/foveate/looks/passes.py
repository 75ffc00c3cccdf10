"""Which patches pass through the network and where each counts, and the map of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from foveate.foveation.estimator import Estimator
from foveate.geometry import BoolArray, Size, Window, ceil_div, tile_starts
from foveate.patches.extraction import Windows


class Passes(NamedTuple):
    """N passes whose supports have one side.

    Attributes:
        supports: where each prediction is used; patches are centred on their supports.
        scale_weights: (N, S) how the input of each pass is mixed from the scales; mostly one-hot.
        weight: (N,) how much each pass counts on its support, relative to others there.
    """

    supports: Windows
    scale_weights: Tensor
    weight: Tensor

    def __len__(self) -> int:  # a NamedTuple would count its fields
        return len(self.weight)

    def select(self, rows: slice | Tensor) -> "Passes":
        """Some of the passes: a slice, or one boolean each."""
        tops, lefts, side = self.supports
        return Passes(Windows(tops[rows], lefts[rows], side), self.scale_weights[rows], self.weight[rows])


class Foveation(Protocol):
    """What a planner may ask of the policy."""

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Scale logits (N, S) of the cells under N level-0 positions inside the image."""
        ...


class Undecided:
    """A foveation that prefers no scale.

    Args:
        scales: how many there are.
    """

    def __init__(self, scales: int) -> None:
        self._scales = scales

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Zeros (N, S)."""
        return torch.zeros(len(rows), self._scales)


class Planner(Protocol):
    """A way of looking: a pure function from the foveation to the passes that a block of the output needs."""

    def passes(self, block: Window, foveation: Foveation) -> list[Passes]:
        """All passes whose support meets the block, in row-major order whatever the block."""
        ...


class BlockArea(NamedTuple):
    """What is looked at in a block, and beyond it as far as passes that begin in it reach.

    Attributes:
        block: level-0 pixels.
        around: (h', w') whether pixels are looked at: those of the block first, then what lies to its right and below.
    """

    block: Window
    around: BoolArray

    @property
    def inside(self) -> BoolArray:
        """(h, w) of the block alone."""
        return self.around[: self.block.height, : self.block.width]

    def meets(self, supports: Windows) -> Tensor:
        """Whether each of N supports holds a pixel of the block that is looked at, (N,)."""
        return meets(supports, self.block, self.inside)


class Begun(NamedTuple):
    """Passes that begin in a block: each of an image does in one, where it is counted and drawn.

    Attributes:
        made: those whose supports hold a pixel that is looked at, in this block or in another.
        skipped: how many do not.
    """

    made: list[Passes]
    skipped: int

    @property
    def passes(self) -> int:
        """How many are made."""
        return sum(map(len, self.made))


def meets(supports: Windows, corner: Window, inside: BoolArray) -> Tensor:
    """Whether each of N supports holds a pixel that is looked at, (N,).

    Args:
        supports: where predictions are used.
        corner: a window whose first pixel is that of `inside`.
        inside: (h, w) whether pixels are looked at; beyond them nothing is.
    """
    tops, lefts, side = supports
    corners = zip((tops - corner.top).tolist(), (lefts - corner.left).tolist(), strict=True)
    found = [bool(inside[max(0, t) : max(0, t + side), max(0, k) : max(0, k + side)].any()) for t, k in corners]
    return torch.tensor(found, dtype=torch.bool)


def begun_in(planned: Sequence[Passes], block: Window, area: BlockArea | None) -> Begun:
    """Those of the passes that meet a block which begin in it, by whether an area (None for everything) needs them."""
    begun = [_begun(passes, block) for passes in planned]
    if area is None:
        return Begun(begun, 0)
    made = [passes.select(meets(passes.supports, block, area.around)) for passes in begun]
    return Begun(made, sum(map(len, begun)) - sum(map(len, made)))


def _begun(passes: Passes, block: Window) -> Passes:
    tops, lefts, _ = passes.supports
    rows, cols = (tops >= block.top) & (tops < block.bottom), (lefts >= block.left) & (lefts < block.right)
    return passes.select(rows & cols)


@dataclass(frozen=True, slots=True)
class PerTarget:
    """Targets tile the image; each gets the passes that the estimator makes of its cell's logits.

    Attributes:
        image: size of the image.
        target: side T of a target, level-0 pixels.
        overlap: share of the side that neighbouring targets overlap.
        estimator: turns scale logits into scale weights.
    """

    image: Size
    target: int
    overlap: float
    estimator: Estimator

    def passes(self, block: Window, foveation: Foveation) -> list[Passes]:
        """The estimator's looks at every target that meets the block."""
        stride = target_stride(self.target, self.overlap)
        tops = _starts(self.image.height, self.target, stride, block.top, block.bottom)
        lefts = _starts(self.image.width, self.target, stride, block.left, block.right)
        grid = torch.cartesian_prod(tops, lefts).reshape(-1, 2)
        centre = grid + self.target // 2
        rows = centre[:, 0].clamp(max=self.image.height - 1)
        cols = centre[:, 1].clamp(max=self.image.width - 1)
        looks = self.estimator.looks(foveation.logits_at(rows, cols))
        supports = Windows(grid[:, 0], grid[:, 1], self.target)
        return [Passes(supports, look.scale_weights, look.weight).select(look.weight > 0) for look in looks]


def target_stride(target: int, overlap: float) -> int:
    """Pixels from one target of this side to the next, which overlap by this share of it."""
    return max(1, round(target * (1 - overlap)))


def _starts(length: int, side: int, stride: int, first: int, last: int) -> Tensor:
    """Starts of the image's tiles that meet [first, last)."""
    starts = torch.tensor(tile_starts(length, side, stride))
    return starts[(starts + side > first) & (starts < last)]


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
