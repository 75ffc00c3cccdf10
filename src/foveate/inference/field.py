"""The policy's answer anywhere in an image, the map made of it, and how much each look counts by it."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from foveate.errors import ConfigError
from foveate.foveation.estimator import Asked, Estimator, Learned, shares_of
from foveate.geometry import CellGrid, Window, ceil_div
from foveate.inference.source import PixelSource
from foveate.looks.passes import Foveation
from foveate.patches.extraction import overview_window
from foveate.patches.scales import ScaleSet
from foveate.segmenter import FoveatedSegmenter

# Tiles have one shape and lie on one grid, so that a cell's logits are the same bits whatever block asks for them.
TILE_CELLS = 128
CACHED_TILES = 512  # about 200 kB each; enough that blocks in rows do not read an overview twice

TileObserver = Callable[[Window, Tensor], None]


class FoveationField:
    """Scale logits of one image, tile by tile of cells.

    Args:
        segmenter: in eval mode.
        source: the image.
        on_tile: called with every computed tile: its window in cells, clipped to the grid, and logits (S, h, w).
    """

    def __init__(self, segmenter: FoveatedSegmenter, source: PixelSource, on_tile: TileObserver | None = None) -> None:
        self.grid = CellGrid(source.size, segmenter.overview_downsample)
        self._segmenter = segmenter
        self._source = source
        self._on_tile = on_tile
        self._tile = lru_cache(CACHED_TILES)(self._compute)

    @property
    def learned(self) -> bool:
        """Whether there is a policy that was asked."""
        return self._segmenter.has_policy

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Scale logits (N, S), on the CPU, of the cells under N level-0 positions inside the image."""
        result = torch.zeros(len(rows), len(self._segmenter.scales))
        cell_rows, cell_cols = rows // self.grid.cell, cols // self.grid.cell
        across = ceil_div(self.grid.cols, TILE_CELLS)
        tiles = cell_rows // TILE_CELLS * across + cell_cols // TILE_CELLS
        for tile in torch.unique(tiles).tolist():
            inside = tiles == tile
            logits = self._tile(*divmod(tile, across))
            result[inside] = logits[:, cell_rows[inside] % TILE_CELLS, cell_cols[inside] % TILE_CELLS].T
        return result

    def cover(self, block: Window) -> None:
        """Compute every tile under a block, so that an observer sees the whole map whatever a planner asks for."""
        side = TILE_CELLS * self.grid.cell
        last_row, last_col = (self.grid.rows - 1) // TILE_CELLS, (self.grid.cols - 1) // TILE_CELLS
        for row in range(block.top // side, min((block.bottom - 1) // side, last_row) + 1):
            for col in range(block.left // side, min((block.right - 1) // side, last_col) + 1):
                self._tile(row, col)

    @torch.inference_mode()
    def _compute(self, row: int, col: int) -> Tensor:
        cells = Window(row * TILE_CELLS, col * TILE_CELLS, TILE_CELLS, TILE_CELLS)
        shape = (len(self._segmenter.scales), cells.height, cells.width)
        logits = self._segmenter.estimator.logits(Asked(shape, partial(self._ask_policy, cells), _seed(cells)))
        inside = cells.intersection(Window(0, 0, self.grid.rows, self.grid.cols))
        if self._on_tile is not None and inside is not None:
            self._on_tile(inside, logits[:, : inside.height, : inside.width])
        return logits

    def _ask_policy(self, cells: Window) -> Tensor:
        window, size = overview_window(cells, self.grid.cell, self._segmenter.policy.margin)
        overview = self._source.normalised(self._source.read(window, size))
        return self._segmenter.scale_logits(overview[None])[0].float().cpu()


def _seed(cells: Window) -> int:
    return (cells.top << 31) + cells.left


def scale_probabilities(logits: Tensor, estimator: Estimator) -> Tensor:
    """The policy's probabilities (S, h, w) from scale logits (S, h, w).

    Of an estimator that does not learn, the weights it uses.
    """
    rows = logits.flatten(1).T
    weights = rows.softmax(dim=-1) if isinstance(estimator, Learned) else shares_of(estimator.looks(rows))
    return weights.T.view(logits.shape)


def expected_view(probabilities: Tensor, scales: ScaleSet) -> Tensor:
    """Expected field of view (h, w), level-0 pixels, under probabilities (S, h, w) of the scales."""
    views = torch.tensor(scales.fields_of_view, dtype=probabilities.dtype)
    expected: Tensor = torch.tensordot(views, probabilities, dims=1)
    return expected


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
