"""Everything a block needs before the network runs: its passes, and the pixels they look at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Size, Window
from foveate.inference.planning.plan import Foveation, Passes, Planner
from foveate.inference.predicting.pixels import PixelSource
from foveate.patches.extraction import Region, Windows, extract_patches, region_downsample, region_window
from foveate.patches.scales import ScaleSet


class PassGroup(NamedTuple):
    """Passes, and the pixels they look at.

    Attributes:
        passes: N of them, of one side of support.
        regions: by scale, for the scales in use.
    """

    passes: Passes
    regions: dict[int, Region]


class PreparedBlock(NamedTuple):
    """A block that is ready to be predicted.

    Attributes:
        window: the block, level-0 pixels.
        groups: its passes.
    """

    window: Window
    groups: list[PassGroup]


def prepare_block(
    block: Window, planner: Planner, foveation: Foveation, source: PixelSource, scales: ScaleSet
) -> PreparedBlock:
    """Plan a block and read its regions: each pixel once per scale in use, however many patches share it."""
    groups = [PassGroup(passes, read_regions(passes, source, scales)) for passes in planner.passes(block, foveation)]
    return PreparedBlock(block, groups)


def read_regions(passes: Passes, source: PixelSource, scales: ScaleSet) -> dict[int, Region]:
    """The part of the image that the passes look at, by the scales they use."""
    used = [scale for scale in range(len(scales)) if bool((passes.scale_weights[:, scale] > 0).any())]
    return {scale: _read_region(passes, scale, source, scales) for scale in used}


def patch_windows(supports: Windows, side: int) -> Windows:
    """The windows of this side around the centres of the supports."""
    shift = (supports.side - side) // 2
    return Windows(supports.top + shift, supports.left + shift, side)


def mixed_patches(passes: Passes, regions: dict[int, Region], scales: ScaleSet) -> Tensor:
    """The input of each pass, (N, C, P, P) float in the file's range: its scales' patches times their weights."""
    pixels = next(iter(regions.values())).pixels
    mixed = torch.zeros(
        len(passes), pixels.shape[0], scales.patch_size, scales.patch_size, device=pixels.device, dtype=torch.float32
    )
    for scale, region in regions.items():
        rows = torch.nonzero(passes.scale_weights[:, scale] > 0)[:, 0]
        if len(rows) == 0:
            continue
        tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
        chosen = Windows(tops[rows].to(pixels.device), lefts[rows].to(pixels.device), side)
        weight = passes.scale_weights[rows, scale].to(pixels.device).view(-1, 1, 1, 1)
        mixed.index_add_(0, rows.to(pixels.device), extract_patches(region, chosen, scales.patch_size) * weight)
    return mixed


def _read_region(passes: Passes, scale: int, source: PixelSource, scales: ScaleSet) -> Region:
    rows = passes.scale_weights[:, scale] > 0
    tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
    downsample = region_downsample(scales.downsample(scale))
    window = region_window(Windows(tops[rows], lefts[rows], side), downsample)
    size = Size(window.height // downsample, window.width // downsample)
    return Region(source.read(window, size), window.top // downsample, window.left // downsample, downsample)
