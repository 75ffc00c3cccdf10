"""The policy's logits anywhere in an image, computed where asked for and never held for the whole image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from foveate.geometry import CellGrid, Window
from foveate.inference.predicting.pixels import PixelSource
from foveate.patches.overview import overview_window
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
        self._tiles: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    @property
    def learned(self) -> bool:
        """Whether there is a policy that was asked."""
        return self._segmenter.estimator.learns

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Scale logits (N, S), on the CPU, of the cells under N level-0 positions inside the image."""
        result = torch.zeros(len(rows), len(self._segmenter.scales))
        cell_rows, cell_cols = rows // self.grid.cell, cols // self.grid.cell
        tiles = torch.stack([cell_rows // TILE_CELLS, cell_cols // TILE_CELLS], dim=1)
        for tile in torch.unique(tiles, dim=0):
            inside = (tiles == tile).all(dim=1)
            logits = self._tile(int(tile[0]), int(tile[1]))
            result[inside] = logits[:, cell_rows[inside] % TILE_CELLS, cell_cols[inside] % TILE_CELLS].T
        return result

    def cover(self, block: Window) -> None:
        """Compute every tile under a block, so that an observer sees the whole map whatever a planner asks for."""
        side = TILE_CELLS * self.grid.cell
        last_row, last_col = (self.grid.rows - 1) // TILE_CELLS, (self.grid.cols - 1) // TILE_CELLS
        for row in range(block.top // side, min((block.bottom - 1) // side, last_row) + 1):
            for col in range(block.left // side, min((block.right - 1) // side, last_col) + 1):
                self._tile(row, col)

    def _tile(self, row: int, col: int) -> Tensor:
        key = (row, col)
        if key not in self._tiles:
            self._tiles[key] = self._compute(row, col)
            if len(self._tiles) > CACHED_TILES:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end(key)
        return self._tiles[key]

    @torch.inference_mode()
    def _compute(self, row: int, col: int) -> Tensor:
        cells = Window(row * TILE_CELLS, col * TILE_CELLS, TILE_CELLS, TILE_CELLS)
        logits = self._ask_policy(cells) if self._segmenter.estimator.learns else self._no_choice(cells)
        inside = cells.intersection(Window(0, 0, self.grid.rows, self.grid.cols))
        if self._on_tile is not None and inside is not None:
            self._on_tile(inside, logits[:, : inside.height, : inside.width])
        return logits

    def _ask_policy(self, cells: Window) -> Tensor:
        window, size = overview_window(cells, self.grid.cell, self._segmenter.policy.margin)
        overview = self._source.normalised(self._source.read(window, size))
        return self._segmenter.scale_logits(overview[None])[0].float().cpu()

    def _no_choice(self, cells: Window) -> Tensor:
        shape = (len(self._segmenter.scales), cells.height, cells.width)
        return self._segmenter.estimator.unlearned_logits(shape, seed=(cells.top << 31) + cells.left)
