"""The pyramid cover: nested grids of windows, what closer ones are expected to bring, and the price of a budget."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.data.area import Area
from foveate.errors import ConfigError
from foveate.geometry import Size, Window, ceil_div, tile_starts
from foveate.looks.passes import meets
from foveate.membership import Exclusive, Membership
from foveate.patches.extraction import Windows
from foveate.patches.scales import crop_central


class PyramidLook(NamedTuple):
    """One way of looking.

    Attributes:
        view: field of view, level-0 pixels.
        keep: side of the central part of its windows that is used, as a share of the view, in (0, 1].
    """

    view: int
    keep: float


def smallest_first(looks: Iterable[tuple[int, float]]) -> tuple[PyramidLook, ...]:
    """Looks in the order of their kept parts, and of equal ones in that of their fields of view."""
    return tuple(sorted((PyramidLook(*look) for look in looks), key=lambda look: (look.view * look.keep, look.view)))


@dataclass(frozen=True, slots=True)
class PyramidGrid:
    """Where the passes of each look are used: disjoint supports, nested grids with a corner at the image's.

    Attributes:
        image: size of the image.
        sides: side of the supports of each look, ascending, each a multiple of the one before, level-0 pixels.
    """

    image: Size
    sides: tuple[int, ...]

    @classmethod
    def of(cls, image: Size, looks: Sequence[PyramidLook]) -> Self:
        """The grids of some looks; a support is the largest multiple of the one before within its kept part.

        Args:
            image: size of the image.
            looks: smallest kept part first.
        """
        return cls(image, cls.sides_of(looks))

    @staticmethod
    def sides_of(looks: Sequence[PyramidLook]) -> tuple[int, ...]:
        """Side of the supports of each look, whatever the image."""
        sides = [max(1, round(looks[0].keep * looks[0].view))]
        for look in looks[1:]:
            # Rounded parts of doubling views may miss a multiple by a pixel.
            sides.append(max(1, int(look.keep * look.view + 1) // sides[-1]) * sides[-1])
        return tuple(sides)

    @property
    def roots(self) -> Windows:
        """All of the widest supports, row by row."""
        return self.roots_in(Window.of(self.image))

    def roots_in(self, block: Window) -> Windows:
        """The widest supports that meet a block inside the image."""
        side = self.sides[-1]
        tops = torch.arange(block.top // side * side, block.bottom, side)
        lefts = torch.arange(block.left // side * side, block.right, side)
        grid = torch.cartesian_prod(tops, lefts).reshape(-1, 2)
        return Windows(grid[:, 0], grid[:, 1], side)

    def parts(self, level: int) -> int:
        """Supports of a level in a row of one widest support."""
        return self.sides[-1] // self.sides[level]

    def inside(self, roots: Windows, level: int) -> Windows:
        """The supports of a level that tile each of N widest ones: (N * parts ** 2), root by root, row by row."""
        side, steps = self.sides[level], torch.arange(self.parts(level))
        shape = (len(roots.top), len(steps), len(steps))
        tops = (roots.top[:, None, None] + side * steps[:, None]).expand(shape)
        lefts = (roots.left[:, None, None] + side * steps).expand(shape)
        return Windows(tops.flatten(), lefts.flatten(), side)


def share_inside(windows: Windows, area: Window) -> Tensor:
    """Share of each window (N,) that lies inside an area, in [0, 1]."""
    rows = (windows.top + windows.side).clamp(max=area.bottom) - windows.top.clamp(min=area.top)
    cols = (windows.left + windows.side).clamp(max=area.right) - windows.left.clamp(min=area.left)
    return rows.clamp(min=0) * cols.clamp(min=0) / windows.side**2


def covered(supports: Windows, block: Window) -> Tensor:
    """Whether each pixel (h, w) of a block lies in one of N supports, whose corners are multiples of their side."""
    side = supports.side
    first_row, first_col = block.top // side, block.left // side
    rows, cols = (block.bottom - 1) // side - first_row + 1, (block.right - 1) // side - first_col + 1
    row, col = supports.top // side - first_row, supports.left // side - first_col
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    flags = torch.zeros(rows, cols, dtype=torch.bool)
    flags[row[inside], col[inside]] = True
    pixels = flags.repeat_interleave(side, 0).repeat_interleave(side, 1)
    top, left = block.top - first_row * side, block.left - first_col * side
    return pixels[top : top + block.height, left : left + block.width]


def per_cell(weights: Tensor, cell: int) -> Tensor:
    """Mean weights (S, rows, cols) over the cells of a block from those of its pixels (S, h, w), each cell's sum one.

    Args:
        weights: not negative, positive at every pixel for one scale at least.
        cell: side of a cell; the block's corner is one of a cell, and the last cells may be cut off.
    """
    sums = F.avg_pool2d(weights[None].float(), cell, ceil_mode=True, count_include_pad=False)[0]
    return sums / sums.sum(dim=0)


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


def met_parts(roots: Windows, supports: Windows, image: Size, area: Area | None) -> Tensor:
    """Which of the supports (N,) that tile some widest ones, one after the other, meet the image and an area."""
    if area is None:
        return share_inside(supports, Window.of(image)) > 0
    met, each = [], len(supports.top) // len(roots.top)
    for i, (top, left) in enumerate(roots.corners):
        root = Window(top, left, roots.side, roots.side).intersection(Window.of(image))
        part = slice(i * each, (i + 1) * each)
        own = Windows(supports.top[part], supports.left[part], supports.side)
        met.append(meets(own, root, area.inside(root)) if root else torch.zeros(each, dtype=torch.bool))
    return torch.cat(met)


def megapixels_of(roots: Windows, image: Size) -> float:
    """Megapixels of an image under some widest supports: what a budget is counted for."""
    heights = (roots.top + roots.side).clamp(max=image.height) - roots.top
    widths = (roots.left + roots.side).clamp(max=image.width) - roots.left
    return int((heights * widths).sum()) / 1e6


def passes_allowed(budget: float | str, roots: Windows, image: Size, target: int, area: Area | None = None) -> int:
    """A budget as a number of passes over what is looked at of an image.

    Args:
        budget: passes per megapixel under the widest supports, or "fixed" for what one fixed field of view costs
            without overlap, or a share of that, such as "50%".
        roots: the widest supports that meet the area.
        image: size of the image.
        target: side of a target, level-0 pixels.
        area: what is looked at; None for everything.

    Raises:
        ConfigError: for a budget of seconds, which only a run on a device can count in passes.
    """
    if isinstance(budget, str):
        share = share_of_fixed(budget)
        if share is None:
            raise ConfigError(
                f"a budget of {budget} is for `predict`; give passes per megapixel, fixed, 50% or all here"
            )
        return int(share * _targets(image, target, area) + 1e-9)
    return int(budget * megapixels_of(roots, image) + 1e-9)


def share_of_fixed(budget: str) -> float | None:
    """What "fixed", or a budget such as "50%", is of the passes of one fixed field of view; None for any other."""
    if budget == "fixed":
        return 1.0
    return float(budget.removesuffix("%")) / 100 if budget.endswith("%") else None


def _targets(image: Size, target: int, area: Area | None) -> int:
    if area is not None and not area.is_everything:
        return int(area.squares(target).sum())
    return len(tile_starts(image.height, target, target)) * len(tile_starts(image.width, target, target))


def closer_looks(allowed: int, roots: Windows, image: Size) -> int:
    """How many of the passes allowed on an image are left for closer looks, after those of the widest supports.

    Raises:
        ConfigError: when they do not pay for the widest scale alone, which says the least that would.
    """
    wide = len(roots.top)
    if allowed < wide:
        least = math.ceil(100 * wide / megapixels_of(roots, image)) / 100
        raise ConfigError(
            f"a budget of {allowed} passes for this image is below {wide}, the cost of one look with the widest field "
            f"of view; give at least {least:g} passes per megapixel, or wider fields of view"
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
