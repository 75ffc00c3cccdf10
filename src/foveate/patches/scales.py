"""The fields of view, what a patch shows of each, and how its output returns to the image.

A patch is plain, or has its surroundings in the rim. Outputs are cropped over the target, weighted where they overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from foveate.errors import GeometryError
from foveate.geometry import Window
from foveate.package import torch
from foveate.types import Blending


class PatchPart(NamedTuple):
    """What a patch shows of a window around its centre.

    Attributes:
        view: side of the window, level-0 pixels.
        pixels: side of the picture of it that the patch is made of.
    """

    view: int
    pixels: int


_SMALLEST_WITH_RIM = 8
_SHARP = 0.75  # side of the middle of a patch with a surround, as a share of the patch's


@dataclass(frozen=True, slots=True, init=False)
class ScaleSet:
    """The fields of view to choose from, ascending, for patches of one constant size.

    A patch with a surround is sharp in its middle, three quarters of its side, where it shows its field of view. The
    rim shows what lies around that, squeezed. So the middle has fewer pixels than a plain patch, but no window is cut
    off from its surroundings, and a pass costs the same.

    Attributes:
        patch_size: side P of the patch the network sees, in patch pixels.
        fields_of_view: sides of the windows a patch may be cut from, in level-0 pixels, strictly ascending, none
            magnified. Index 0 is the narrowest and the side of the target.
        surround: how many times as wide as its field of view all that a patch shows is; None for plain patches.

    Raises:
        GeometryError: when the fields of view are empty, unsorted, repeated or smaller than the patch, or the surround
            is not wider than they are.

    Source: the "patch bank" of arXiv 2007.15124, section 2; the surround is ours, after the idea of SCPSeg.
    """

    patch_size: int
    fields_of_view: tuple[int, ...]
    surround: float | None

    def __init__(self, patch_size: int, fields_of_view: Sequence[int], surround: float | None = None) -> None:
        object.__setattr__(self, "patch_size", int(patch_size))
        object.__setattr__(self, "fields_of_view", tuple(int(f) for f in fields_of_view))
        object.__setattr__(self, "surround", surround)
        self._check()

    def _check(self) -> None:
        views = self.fields_of_view
        if self.patch_size < 1:
            raise GeometryError(f"the patch size must be at least 1, got {self.patch_size}")
        if not views:
            raise GeometryError("fields_of_view is empty; give at least one, for example [256, 512, 1024]")
        if any(a >= b for a, b in pairwise(views)):
            raise GeometryError(
                f"fields_of_view must be strictly ascending, got {list(views)}; try {sorted(set(views))}"
            )
        if self.surround is not None and not 1 < self.surround < math.inf:
            raise GeometryError(
                f"a surround is wider than the field of view, for example 4 times; got {self.surround:g}; for none, "
                "leave it out"
            )
        if self.surround is not None and self.patch_size < _SMALLEST_WITH_RIM:
            raise GeometryError(
                f"a patch of {self.patch_size} px has no room for a surround; use at least {_SMALLEST_WITH_RIM} px"
            )
        if views[0] < self.middle:
            raise GeometryError(
                f"a field of view of {views[0]} px is smaller than the patch of {self.patch_size} px"
                f"{'' if self.surround is None else f', whose middle has {self.middle} px,'} and would be "
                f"enlarged; use fields of view of at least {self.middle} or a smaller patch_size"
            )

    def __len__(self) -> int:
        return len(self.fields_of_view)

    @property
    def target(self) -> int:
        """Side T of the window a prediction is for: the narrowest field of view, in level-0 pixels."""
        return self.fields_of_view[0]

    @property
    def middle(self) -> int:
        """Side of the part of a patch that shows its field of view, in patch pixels: all of it without a surround."""
        return middle_side(self.patch_size, self.surround)

    @property
    def middle_share(self) -> float:
        """Side of that part as a share of the patch's."""
        return self.middle / self.patch_size

    def downsample(self, scale: int) -> float:
        """Level-0 pixels per patch pixel at this scale, at least 1; of a patch with a surround, in its middle."""
        return self.fields_of_view[scale] / self.middle

    def parts(self, scale: int) -> tuple[PatchPart, ...]:
        """What a patch of this scale is made of: its field of view, and with a surround all that it shows.

        The picture of the surround has as many pixels as the rim can show of it, so that nothing aliases.
        """
        view = self.fields_of_view[scale]
        if self.surround is None:
            return (PatchPart(view, self.patch_size),)
        around = view + 2 * round((self.surround - 1) * view / 2)
        pixels = round((self.patch_size - self.middle) * around / max(1, around - view))
        return PatchPart(view, self.middle), PatchPart(around, min(pixels, self.patch_size, around))

    def only(self, scales: Sequence[int]) -> tuple[int, ...]:
        """The fields of view of some scales."""
        return tuple(self.fields_of_view[scale] for scale in scales)

    def window(self, around: Window, scale: int) -> Window:
        """The window of this scale centred on a cell or target; it may reach outside the image."""
        return around.centred(self.fields_of_view[scale])


def middle_side(patch_size: int, surround: float | None) -> int:
    """Side of the part of a patch that shows its field of view, in patch pixels."""
    return patch_size if surround is None else patch_size - 2 * round((1 - _SHARP) * patch_size / 2)


def assembled(parts: Sequence[torch.Tensor], scales: ScaleSet) -> torch.Tensor:
    """Patches (..., C, P, P) of pictures of their parts, see `ScaleSet.parts`; in the dtype of the first."""
    if scales.surround is None:
        return parts[0]
    sharp, around = parts
    rim, middle = (scales.patch_size - scales.middle) // 2, scales.middle
    rows = _squeezing(rim, middle, scales.surround, around.shape[-1], around.device)
    patches = rows @ around.float() @ rows.T
    patches = patches if sharp.is_floating_point() else (patches + 0.5).floor_().to(sharp.dtype)
    patches[..., rim : rim + middle, rim : rim + middle] = sharp
    return patches


@lru_cache(maxsize=64)
def _squeezing(rim: int, middle: int, surround: float, pixels: int, device: torch.device) -> torch.Tensor:
    """How each pixel of a row of the patch is read, bilinearly, off a row of the picture around it: (P, pixels)."""
    share = 1 / surround
    with torch.inference_mode(False):  # it is kept, and a later call may have gradients
        outside = (torch.arange(rim) + 0.5) / rim * (1 - share) + share
        inside = ((torch.arange(middle) + 0.5) / middle * 2 - 1) * share
        places = (torch.cat([-outside.flip(0), inside, outside]) + 1) / 2 * pixels - 0.5
        distance = (places.clamp(0, pixels - 1)[:, None] - torch.arange(pixels)).abs()
        return (1 - distance).clamp(min=0).to(device)


def crop_central(output: torch.Tensor, fraction: float, side: int) -> torch.Tensor:
    """Cut the central part out of each output and resample it, bilinearly, to the target's side.

    Args:
        output: (N, C, P', P') logits over a patch's whole window.
        fraction: side of the kept part divided by the side of the window, in (0, 1]: T / f for a target of side T.
        side: side of the result in pixels, T.

    Returns:
        (N, C, side, side) logits over the target. Pixel centres correspond (`align_corners=False`); neighbours just
        outside the kept part take part in the interpolation, as they are known.
    """
    if fraction == 1:
        return resize_logits(output, side)
    centres = (torch.arange(side, dtype=torch.float32, device=output.device) + 0.5) * (2 * fraction / side) - fraction
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
    grid = grid.to(output.dtype).expand(output.shape[0], -1, -1, -1)
    return torch.nn.functional.grid_sample(output, grid, mode="bilinear", padding_mode="border", align_corners=False)


def middle_of(output: torch.Tensor, share: float) -> torch.Tensor:
    """The middle, of a share of the side, of outputs (N, C, P', P') at their own resolution: (N, C, m, m)."""
    if share == 1:
        return output
    side = output.shape[-1]
    rim = (1 - share) * side / 2
    if rim == round(rim):
        return output[..., round(rim) : side - round(rim), round(rim) : side - round(rim)]
    return crop_central(output, share, max(1, round(share * side)))


def chosen_crops(output: torch.Tensor, weights: torch.Tensor, views: Sequence[int], side: int) -> torch.Tensor:
    """Each output over its target, read at the fields of view that its weights choose.

    Args:
        output: (N, C, P', P') logits over patches' whole windows.
        weights: (N, S) of the scales; only those that are not zero, or have a gradient, are read.
        views: S fields of view, level-0 pixels.
        side: of the target.

    Returns:
        (N, C, side, side) sums over the scales.

    Raises:
        GeometryError: when all weights are zero.
    """
    total = None
    for scale, view in enumerate(views):
        share = weights[:, scale]
        if not share.requires_grad and bool((share == 1).all()):
            return crop_central(output, side / view, side)
        # One-hot weights without a gradient leave most rows out of most scales.
        rows = torch.arange(len(output), device=output.device)
        rows = rows if share.requires_grad else rows[share != 0]
        if len(rows) == 0:
            continue
        part = crop_central(output[rows], side / view, side)
        part = part * share[rows].to(part.dtype).view(-1, 1, 1, 1)
        if total is None:
            total = part.new_zeros(len(output), *part.shape[1:])
        total = total.index_add(0, rows, part)
    if total is None:
        raise GeometryError("scale weights of zero: each row must sum to one")
    return total


def weighted_crops(
    output: torch.Tensor, weights: torch.Tensor, views: Sequence[int], side: int, scales: Sequence[int]
) -> torch.Tensor:
    """As `chosen_crops`, of these scales, without looking at the weights, which would wait for the device."""
    parts = []
    for scale in scales:
        part = crop_central(output, side / views[scale], side)
        share = weights[:, scale].to(part.dtype).view(-1, 1, 1, 1)
        parts.append(part if len(scales) == 1 else torch.where(share == 0, 0, part * share))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)


def resize_logits(output: torch.Tensor, side: int) -> torch.Tensor:
    """Resample (N, C, h, w) logits to `side` x `side`; returned unchanged when they already are."""
    if output.shape[-2:] == (side, side):
        return output
    return torch.nn.functional.interpolate(
        output, size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )


def importance_window(side: int, blending: Blending) -> torch.Tensor:
    """Weights (side, side) of one support, symmetric, in (0, 1], never zero: a pixel seen once must still count.

    Args:
        side: side of the support in pixels.
        blending: "none" (all one), "linear" (a pyramid), "hann" (raised cosine) or "gaussian" (sigma side / 8, as in
            nnU-Net and MONAI, with a floor of 1e-3).
    """
    ramp = _RAMPS[blending](torch.arange(side, dtype=torch.float64) + 0.5, side).float()
    return ramp[:, None] * ramp[None, :]


# By the centres of the pixels along the side.
_RAMPS: dict[Blending, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "none": lambda at, side: torch.ones_like(at),
    "linear": lambda at, side: torch.minimum(at, side - at) * (2 / side),
    "hann": lambda at, side: torch.sin(torch.pi * (at / side)) ** 2,
    "gaussian": lambda at, side: torch.exp(-0.5 * ((at - side / 2) / (side / 8)) ** 2).clamp(min=1e-3),
}
