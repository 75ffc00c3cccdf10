"""What a closer look is expected to bring, and what it may cost: the price of a pass that meets a budget."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.data.area.area import Area
from foveate.errors import ConfigError
from foveate.geometry import Size, Window, ceil_div, tile_starts
from foveate.looks.pyramid import PyramidGrid, share_inside
from foveate.membership import Exclusive, Membership
from foveate.patches.alignment import crop_central
from foveate.patches.extraction import Windows


def entropy_of_parts(logits: Tensor, kept: float, parts: int, membership: Membership = Exclusive()) -> Tensor:  # noqa: B008
    """Mean entropy of the predicted class over the parts of each window's kept centre.

    Args:
        logits: (N, C, P', P') over whole windows.
        kept: side of the kept centre as a share of the window's, in (0, 1].
        parts: the centre is divided into parts x parts.
        membership: how classes are read off logits.

    Returns:
        (N, parts ** 2) in nats, row by row: 0 where the prediction is certain, log C where it knows nothing.
    """
    entropy = membership.entropy(logits.float()).unsqueeze(1)
    samples = max(1, ceil_div(round(kept * logits.shape[-1]), parts))
    central = crop_central(entropy, kept, parts * samples)
    return F.avg_pool2d(central, samples).flatten(1)


def gains_of(entropy: Tensor, supports: Windows, narrowest: int, image: Size) -> Tensor:
    """Gain of a look at each support: its entropy, times the narrowest supports that it covers inside the image.

    Args:
        entropy: (N,) mean entropy of the wide look over each support, in nats.
        supports: N of them.
        narrowest: side of the supports of the closest look, level-0 pixels.
        image: size of the image.

    Returns:
        (N,).
    """
    return entropy * (supports.side / narrowest) ** 2 * share_inside(supports, Window.of(image))


def roots_of(grid: PyramidGrid, area: Area | None) -> Windows:
    """The widest supports that hold a pixel of an area, row by row; all of them when None."""
    tops, lefts, side = grid.roots
    if area is None or area.is_everything:
        return grid.roots
    met = torch.from_numpy(area.squares(side))[tops // side, lefts // side]
    return Windows(tops[met], lefts[met], side)


def megapixels_of(roots: Windows, image: Size) -> float:
    """Megapixels of an image under some widest supports: what a budget is counted for."""
    heights = (roots.top + roots.side).clamp(max=image.height) - roots.top
    widths = (roots.left + roots.side).clamp(max=image.width) - roots.left
    return int((heights * widths).sum()) / 1e6


def passes_allowed(budget: float | str, roots: Windows, image: Size, target: int, area: Area | None = None) -> int:
    """A budget as a number of passes over what is looked at of an image.

    Args:
        budget: passes per megapixel under the widest supports, or "fixed" for what one fixed field of view costs
            without overlap.
        roots: the widest supports that meet the area.
        image: size of the image.
        target: side of a target, level-0 pixels.
        area: what is looked at; None for everything.

    Raises:
        ConfigError: for a budget of seconds, which only a run on a device can count in passes.
    """
    if isinstance(budget, str):
        if budget != "fixed":
            raise ConfigError(f"a budget of {budget} is for `predict`; give passes per megapixel, fixed or all here")
        if area is not None and not area.is_everything:
            return int(area.squares(target).sum())
        return len(tile_starts(image.height, target, target)) * len(tile_starts(image.width, target, target))
    return int(budget * megapixels_of(roots, image) + 1e-9)


def closer_looks(allowed: int, roots: Windows, image: Size) -> int:
    """How many of the passes allowed on an image are left for closer looks, after those of the widest supports.

    Raises:
        ConfigError: when they do not pay for the widest scale alone, which says the least that would.
    """
    wide = len(roots.top)
    if allowed < wide:
        least = math.ceil(100 * wide / megapixels_of(roots, image)) / 100
        raise ConfigError(
            f"a budget of {allowed} passes for this image is below the {wide} that looking at it once, as widely as "
            f"possible, costs; give at least {least:g} passes per megapixel, or wider fields of view"
        )
    return allowed - wide


def price_for(gains: Tensor, passes: int) -> float:
    """The price at which at most this many passes are bought: those whose gain is above it.

    Args:
        gains: (N,) of all passes there are, or of a sample of them.
        passes: how many may be bought of these.
    """
    if passes >= len(gains):
        return -1.0
    return float(torch.sort(gains, descending=True).values[passes])
