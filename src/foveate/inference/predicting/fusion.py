"""How much each look's prediction counts at each pixel where several looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from foveate.errors import ConfigError
from foveate.geometry import CellGrid, Window
from foveate.inference.planning.foveation_field import FoveationField
from foveate.inference.planning.plan import Foveation

Fusion: TypeAlias = tuple[float, ...]


def fusion_weights(
    block: Window,
    fusion: str | Fusion,
    scales: Sequence[int],
    field: FoveationField,
) -> Tensor:
    """How much each of L looks counts at the pixels of a block, (L, 1, h, w).

    Args:
        block: level-0 pixels.
        fusion: "policy", or one weight for each look.
        scales: scale of each look.
        field: the policy's logits.

    Raises:
        ConfigError: when not one weight for each look is given.
    """
    if fusion == "policy" and field.learned:
        return policy_weights(block, field.grid, field)[list(scales), None]
    given = closest_most(len(scales)) if isinstance(fusion, str) else fusion
    if len(given) != len(scales):
        raise ConfigError(f"inference.fusion gives {len(given)} weights {list(given)} for {len(scales)} looks")
    return torch.tensor(given).view(-1, 1, 1, 1).expand(-1, -1, block.height, block.width)


def closest_most(looks: int, factor: float = 10.0) -> tuple[float, ...]:
    """Weights of looks, smallest support first: each counts so many times as much as the next wider one."""
    return tuple(factor**closer for closer in reversed(range(looks)))


def policy_weights(block: Window, grid: CellGrid, foveation: Foveation) -> Tensor:
    """The policy's probabilities (S, h, w) at the pixels of a block, bilinear between the centres of cells.

    They depend on the pixel's place in the image only, so that blocks of any size get the same.
    """
    rows = _taps(block.top, block.height, grid.cell, grid.rows)
    cols = _taps(block.left, block.width, grid.cell, grid.cols)
    cells = torch.cartesian_prod(torch.arange(rows.first, rows.last + 1), torch.arange(cols.first, cols.last + 1))
    centres = (cells * grid.cell + grid.cell // 2).T
    limit = torch.tensor([[grid.image.height - 1], [grid.image.width - 1]])
    probs = foveation.logits_at(*torch.minimum(centres, limit)).softmax(dim=-1)
    shape = (rows.last - rows.first + 1, cols.last - cols.first + 1)
    return _interpolated(_interpolated(probs.T.reshape(-1, *shape), rows, 1), cols, 2)


class _Taps(NamedTuple):
    """The two cells that each of n pixels lies between, and how far it is from the lower one."""

    lower: Tensor
    upper: Tensor
    share: Tensor

    @property
    def first(self) -> int:
        return int(self.lower.min())

    @property
    def last(self) -> int:
        return int(self.upper.max())


def _taps(start: int, length: int, cell: int, cells: int) -> _Taps:
    places = (torch.arange(start, start + length, dtype=torch.float64) + 0.5) / cell - 0.5
    places = places.clamp(min=0, max=cells - 1)
    lower = places.floor().long()
    return _Taps(lower, (lower + 1).clamp(max=cells - 1), (places - lower).float())


def _interpolated(values: Tensor, taps: _Taps, axis: int) -> Tensor:
    share = taps.share.view(-1, 1) if axis == 1 else taps.share
    lower = values.index_select(axis, taps.lower - taps.first)
    return lower + (values.index_select(axis, taps.upper - taps.first) - lower) * share
