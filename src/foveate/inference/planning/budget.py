"""What a closer look may cost: the price of a pass that meets a budget for the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveate.errors import ConfigError
from foveate.geometry import Size, tile_starts
from foveate.inference.planning.pyramid import PyramidGrid


def passes_allowed(budget: float | str, image: Size, target: int) -> int:
    """A budget as a number of passes over an image.

    Args:
        budget: passes per megapixel, or "fixed" for what one fixed field of view costs without overlap.
        image: size of the image.
        target: side of a target, level-0 pixels.

    Raises:
        ConfigError: for a budget of seconds, which only a run on a device can count in passes.
    """
    if isinstance(budget, str):
        if budget != "fixed":
            raise ConfigError(f"a budget of {budget} is for `predict`; give passes per megapixel, fixed or all here")
        return len(tile_starts(image.height, target, target)) * len(tile_starts(image.width, target, target))
    return int(budget * image.megapixels + 1e-9)


def closer_looks(allowed: int, grid: PyramidGrid) -> int:
    """How many of the passes allowed on an image are left for closer looks.

    Raises:
        ConfigError: when they do not pay for the widest scale alone, which says the least that would.
    """
    roots = len(grid.roots.top)
    if allowed < roots:
        least = math.ceil(100 * roots / grid.image.megapixels) / 100
        raise ConfigError(
            f"a budget of {allowed} passes for this image is below the {roots} that looking at it once, as widely as "
            f"possible, costs; give at least {least:g} passes per megapixel, or wider fields of view"
        )
    return allowed - roots


def price_for(gains: Tensor, passes: int) -> float:
    """The price at which at most this many passes are bought: those whose gain is above it.

    Args:
        gains: (N,) of all passes there are, or of a sample of them.
        passes: how many may be bought of these.
    """
    if passes >= len(gains):
        return -1.0
    return float(torch.sort(gains, descending=True).values[passes])
