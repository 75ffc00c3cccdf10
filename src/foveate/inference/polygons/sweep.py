"""Go down an image strip by strip and hand on every region as soon as no later strip can touch it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.inference.polygons.corners import OUTSIDE
from foveate.inference.polygons.trace import Chains, trace
from foveate.types import IntArray, LabelArray


class Region(NamedTuple):
    """A region whose borders are complete.

    Attributes:
        value: its class id.
        rings: its borders, (n, 2) columns and rows of their corners; not in any order, and a ring that touches itself
            at a corner is one.
    """

    value: int
    rings: list[IntArray]


def regions(strips: Iterable[LabelArray]) -> Iterator[Region]:
    """The regions of an image: pixels of one id that are connected over their sides.

    Memory: one strip, and the corners of the regions that go on below it.

    Args:
        strips: (h, w) ids of all rows of the image, from the first one down; `OUTSIDE` has no region.
    """
    sweep, above, top = _Sweep(), None, 0
    for strip in strips:
        above = np.full(strip.shape[1], OUTSIDE, np.uint8) if above is None else above
        yield from sweep.add(trace(strip, above, top))
        above, top = strip[-1].copy(), top + len(strip)
    if above is not None:
        yield from sweep.add(trace(np.full((1, len(above)), OUTSIDE, np.uint8), above, top))


class _Piece:
    """A chain of an open region; `after` is the one that it goes on with, itself when it is a ring."""

    __slots__ = ("after", "group", "points")

    def __init__(self, points: NDArray[np.int32], group: _Group) -> None:
        self.points, self.group = points, group
        self.after: _Piece | None = None


class _Group:
    """What is known to be of one open region; `crossings` counts where it reaches over the last strip's border."""

    __slots__ = ("crossings", "pieces", "value")

    def __init__(self, value: int) -> None:
        self.value, self.crossings = value, 0
        self.pieces: list[_Piece] = []

    def rings(self) -> list[IntArray]:
        """All borders, of a group without crossings, which forgets them."""
        pieces, self.pieces = self.pieces, []
        return [_ring(piece) for piece in pieces if piece.after is not None]


def _ring(start: _Piece) -> IntArray:
    """The points of all pieces from this one on; untied meanwhile, so that each is passed once."""
    parts, piece, after = [], start, start.after
    while after is not None:
        parts.append(piece.points)
        piece.after = None
        piece, after = after, after.after
    return np.concatenate(parts).astype(np.int64)


class _Sweep:
    """The open regions between two strips."""

    def __init__(self) -> None:
        self._crossing: list[_Piece] = []  # the piece at each crossing of the last strip's lower border

    def add(self, chains: Chains) -> Iterator[Region]:
        """Take the next strip; yields the regions that are complete with it."""
        is_open = np.zeros(int(chains.region.max(initial=-1)) + 1, bool)
        is_open[chains.region[chains.first >= 0]] = True
        going_on = is_open[chains.region]
        yield from _closed_regions(chains, np.flatnonzero(~going_on))
        groups = self._join(chains, np.flatnonzero(going_on))
        for group in groups.values():
            if group.crossings == 0:
                yield Region(group.value, group.rings())

    def _join(self, chains: Chains, numbers: IntArray) -> dict[int, _Group]:
        """Join the strip's open chains to those above; returns every group they are in."""
        pieces = _pieces(chains, numbers)
        crossing: list[_Piece] = [None] * chains.lower  # type: ignore[list-item]  # each is filled below
        for number, piece in pieces.items():
            first, last = int(chains.first[number]), int(chains.last[number])
            if first < 0:
                piece.after = piece
                continue
            if first < chains.upper:
                _tie(self._crossing[first], piece, self._crossing[first])
            else:
                crossing[first - chains.upper] = piece
            if last < chains.upper:
                _tie(piece, self._crossing[last], self._crossing[last])
            else:
                crossing[last - chains.upper] = piece
        self._crossing = crossing
        for piece in crossing:
            piece.group.crossings += 1
        return {id(piece.group): piece.group for piece in pieces.values()}


def _closed_regions(chains: Chains, numbers: IntArray) -> Iterator[Region]:
    """The regions that lie within a strip, of the chains of these numbers."""
    numbers = numbers[np.argsort(chains.region[numbers], kind="stable")]
    borders = np.flatnonzero(np.diff(chains.region[numbers], prepend=-1, append=-1))
    values, starts, ends = chains.value.tolist(), chains.starts[:-1].tolist(), chains.starts[1:].tolist()
    for a, b in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        members = numbers[a:b].tolist()
        yield Region(values[members[0]], [chains.points[starts[k] : ends[k]] for k in members])


def _pieces(chains: Chains, numbers: IntArray) -> dict[int, _Piece]:
    """A piece for each chain of these numbers, those of one region in one group."""
    groups: dict[int, _Group] = {}
    pieces = {}
    for number in numbers.tolist():
        group = groups.setdefault(int(chains.region[number]), _Group(int(chains.value[number])))
        # A copy, or all corners of the strip would be kept.
        points = chains.points[chains.starts[number] : chains.starts[number + 1]].astype(np.int32)
        pieces[number] = _Piece(points, group)
        group.pieces.append(pieces[number])
    return pieces


def _tie(before: _Piece, after: _Piece, above: _Piece) -> None:
    """Let a piece go on with another, one of which is from above and crosses the border no more."""
    before.after = after
    above.group.crossings -= 1
    small, large = sorted((before.group, after.group), key=lambda group: len(group.pieces))
    if small is not large:
        large.crossings += small.crossings
        large.pieces += small.pieces
        for piece in small.pieces:
            piece.group = large
