"""Blocks by a cascade: the pyramid cover, where a closer look gets what the wider one around it saw."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise

import torch
from torch import Tensor

from foveate.cascade import CascadeSegmenter
from foveate.data.area.area import Area
from foveate.errors import ConfigError
from foveate.inference.config import InferenceConfig
from foveate.inference.field import FoveationField
from foveate.inference.passes import patch_windows
from foveate.inference.plan import looks_of
from foveate.inference.predictor import FinishedBlock, PreparedRoots, PyramidPredictor, keys_of
from foveate.inference.source import PixelSource
from foveate.looks.passes import Passes
from foveate.patches.alignment import Context
from foveate.patches.extraction import Windows

# Level, top and left of a support.
_Key = tuple[int, int, int]


class CascadePredictor(PyramidPredictor):
    """Predicts blocks of one image, level by level: a closer look is made only where the next wider one was.

    Args:
        segmenter, source, config, field, reading, area: see `PyramidPredictor`.

    Raises:
        ConfigError: as `PyramidPredictor`; when a field of view is looked at twice, or a closer look keeps more of the
            image than a wider one.
    """

    def __init__(
        self,
        segmenter: CascadeSegmenter,
        source: PixelSource,
        config: InferenceConfig,
        field: FoveationField,
        reading: Executor,
        area: Area | None = None,
    ) -> None:
        self._cascade = segmenter
        self._handed: dict[_Key, Tensor] = {}  # of the block at hand
        self._handed_in_survey: dict[_Key, Tensor] = {}
        looks = looks_of(config, segmenter.views_passed)
        if any(one.view >= other.view for one, other in pairwise(looks)):
            raise ConfigError(
                f"inference.looks of a cascade are one of each field of view, the closer ones with smaller kept parts; "
                f"got {[tuple(look) for look in looks]}"
            )
        super().__init__(segmenter, source, config, field, reading, area)

    def predict(self, block: PreparedRoots, ahead: Callable[[], PreparedRoots | None]) -> FinishedBlock:
        """Look widely, then level by level closer, with the context of the level before."""
        known = [(self._widest, *key) for key in keys_of(block.roots)]
        stored = self._handed_in_survey
        self._handed = {key: stored[key].to(self._source.device) for key in known if key in stored}
        try:
            return super().predict(block, ahead)
        finally:
            self._handed = {}

    def _keep(self, roots: Windows, outputs: Tensor, further: int = 0) -> bool:
        keys = [(self._widest, *key) for key in keys_of(roots)]
        kept = super()._keep(roots, outputs, further + (self._handed[keys[0]].nbytes if self._widest else 0))
        if kept and self._widest:
            self._handed_in_survey |= {key: self._handed[key].cpu() for key in keys}
        self._handed = {}
        return kept

    def _may_follow(self, supports: Windows, level: int) -> Tensor:
        return torch.tensor([key in self._handed for key in self._around(supports, level + 1)], dtype=torch.bool)

    def _around(self, supports: Windows, level: int) -> list[_Key]:
        """The support of a wider level that each of N supports lies in."""
        side = self._grid.sides[level]
        return [(level, top // side * side, left // side * side) for top, left in keys_of(supports)]

    @torch.inference_mode()
    def _run(self, batch: Passes, inputs: Tensor) -> Tensor:
        scale = int(batch.scale_weights[0].argmax())
        level, count, size = self._scales.index(scale), len(inputs), self._config.batch_size
        patches = _filled(self._source.normalised(inputs), size)
        with torch.autocast(self._source.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
            seen = self._cascade.look(patches, scale, self._context(batch.supports, level, size))
        if level > 0:
            keys = [(level, *key) for key in keys_of(batch.supports)]
            self._handed.update(zip(keys, seen.handed[:count].clone(), strict=True))
        return seen.logits[:count]

    def _context(self, supports: Windows, level: int, size: int) -> Context | None:
        """What the next wider look saw, for N windows filled up to a batch's size."""
        if level == self._widest:
            return None
        keys = self._around(supports, level + 1)
        tops, lefts = (torch.tensor([key[axis] for key in keys]) for axis in (1, 2))
        view, wide = self._looks[level].view, self._looks[level + 1].view
        outer = patch_windows(Windows(tops, lefts, self._grid.sides[level + 1]), wide)
        inner = patch_windows(supports, view)
        corners = torch.stack([inner.top - outer.top, inner.left - outer.left], dim=1) / wide
        seen = torch.stack([self._handed[key] for key in keys])
        return Context(_filled(seen, size), _filled(corners.to(seen.device), size), view / wide)


def _filled(values: Tensor, size: int) -> Tensor:
    """Values (n, ...) with zeros up to (size, ...): every pass of the network has one shape."""
    missing = size - len(values)
    return values if missing <= 0 else torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
