"""What a closer look may cost: the price of a pass that meets a budget for the image."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.errors import ConfigError
from foveate.inference.pyramid import PyramidGrid
from foveate.patches.scales import ScaleSet

Budget = float | str | None


def passes_per_megapixel(budget: float | str, scales: ScaleSet) -> float:
    """A budget as a number; "fixed" is what one fixed field of view costs without overlap."""
    return 1e6 / scales.target**2 if isinstance(budget, str) else float(budget)


def closer_looks(budget: float, grid: PyramidGrid) -> int:
    """Passes of an image that a budget leaves for closer looks.

    Args:
        budget: passes per megapixel of the image.
        grid: where passes may be used.

    Raises:
        ConfigError: when it does not pay for the widest scale alone, which says the least that would.
    """
    roots = len(grid.roots.top)
    allowed = int(budget * grid.image.megapixels + 1e-9)
    if allowed < roots:
        least = roots / grid.image.megapixels
        raise ConfigError(
            f"a budget of {budget:g} passes per megapixel is below the {least:.3g} that looking at this image once, as "
            f"widely as possible, costs; give at least that, or wider fields of view"
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
