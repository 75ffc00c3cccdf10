"""`Context`: what a wider look saw of a closer window, cropped by geometry alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Context(NamedTuple):
    """What wider looks handed on, and where in their windows N closer ones lie.

    Attributes:
        seen: (N, D, m, m) over the whole windows of the wider looks.
        corners: (N, 2) top and left of the closer windows in the wider ones, as shares of the latter's side; float.
        share: side of a closer window as a share of the wider one's.
        kept: (N,) 1 where a closer look gets its context, 0 where it stands alone; all get it when None.
    """

    seen: Tensor
    corners: Tensor
    share: float
    kept: Tensor | None = None

    def over(self, height: int, width: int) -> Tensor:
        """The context (N, D, height, width) over the closer windows.

        A value is read at the centre of each pixel, bilinearly between the centres of the wide map, those just outside
        the closer window included: that is the halo. Where several of the map's pixels lie in one, their mean is taken;
        beyond the wide window the outermost value goes on.
        """
        factors = [
            max(1, math.ceil(self.share * side / count))
            for side, count in zip(self._side, (height, width), strict=True)
        ]
        grid = self._centres(height * factors[0], width * factors[1])
        found = F.grid_sample(self.seen.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        found = F.avg_pool2d(found, factors) if max(factors) > 1 else found
        return found if self.kept is None else found * self.kept.view(-1, 1, 1, 1).to(found.dtype)

    @property
    def _side(self) -> tuple[int, int]:
        return self.seen.shape[-2], self.seen.shape[-1]

    def _centres(self, height: int, width: int) -> Tensor:
        """Where values are read, (N, height, width, 2) as (x, y) in [-1, 1] over the wide windows."""
        corners = self.corners.to(self.seen.device, torch.float32)
        rows, cols = (
            corners[:, axis, None] + (torch.arange(count, device=corners.device) + 0.5) * (self.share / count)
            for axis, count in ((0, height), (1, width))
        )
        shape = (len(corners), height, width)
        return torch.stack([cols[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1) * 2 - 1
