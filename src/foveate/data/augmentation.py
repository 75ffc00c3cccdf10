"""Random changes of a location: the same for its overview, its patches and, where it moves pixels, its label."""

from __future__ import annotations

import torch
from numpy.random import Generator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from foveate.data.config import AugmentationConfig
from foveate.data.locations import Location
from foveate.data.nesting import moved_nesting

_RASTERS = ("overview", "patches", "label", "window_labels")


class Augmentation:
    """Mirrors, turns and recolours locations.

    Args:
        config: what is changed, and how much.
        scale: largest raw value, that colours are measured by; float images are clamped to [0, scale] when recoloured.
    """

    def __init__(self, config: AugmentationConfig, scale: float) -> None:
        self._config, self._scale = config, scale
        strengths = (config.brightness, config.contrast, config.saturation, config.hue)
        self._jitter = v2.ColorJitter(*strengths) if any(strengths) else None

    def __call__(self, location: Location, rng: Generator) -> Location:
        """A changed copy; every draw comes from `rng`, and no global generator is touched."""
        # All draws are made whatever is switched on: one switch does not change what the others draw.
        upright = self._config.flip == "horizontal"
        vertical, horizontal = rng.random(2) < 0.5 * bool(self._config.flip)
        vertical = vertical and not upright
        turns, seed = int(rng.integers(4)) * self._config.rotate90, int(rng.integers(2**63))
        how = bool(vertical), bool(horizontal), turns
        moved = location._replace(
            **{part: _moved(getattr(location, part), *how) for part in _RASTERS},
            nesting=moved_nesting(location.nesting, *how),
        )
        return moved if self._jitter is None else self._recoloured(moved, self._jitter, seed)

    def _recoloured(self, location: Location, jitter: v2.ColorJitter, seed: int) -> Location:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs too.
            torch.default_generator.manual_seed(seed)
            overview, patches = jitter(self._coloured(location.overview), self._coloured(location.patches))
        return location._replace(
            overview=self._raw(overview, location.overview), patches=self._raw(patches, location.patches)
        )

    def _coloured(self, pixels: Tensor) -> tv_tensors.Image:
        """As torchvision wants it: floats in [0, 1], and channels that are not colours as images of their own."""
        values = pixels / self._scale if pixels.is_floating_point() else pixels
        return tv_tensors.Image(values if pixels.shape[-3] == 3 else values.unsqueeze(-3))

    def _raw(self, image: tv_tensors.Image, original: Tensor) -> Tensor:
        values: Tensor = image.as_subclass(Tensor).reshape(original.shape)
        return values * self._scale if original.is_floating_point() else values


def _moved(pixels: Tensor, vertical: bool, horizontal: bool, turns: int) -> Tensor:
    axes = [axis for axis, flip in ((-2, vertical), (-1, horizontal)) if flip]
    flipped = torch.flip(pixels, axes) if axes else pixels
    return torch.rot90(flipped, turns, (-2, -1)).contiguous()
