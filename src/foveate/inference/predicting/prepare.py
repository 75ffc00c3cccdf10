"""Everything a block needs before the network runs: its passes, and the pixels they look at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foveate.geometry import Size, Window
from foveate.inference.planning.in_area import Begun, BlockArea, begun_in
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
        begun: passes that begin in it.
        area: what is looked at; None for everything.
    """

    window: Window
    groups: list[PassGroup]
    begun: Begun
    area: BlockArea | None = None


def prepare_block(
    block: Window,
    planner: Planner,
    foveation: Foveation,
    source: PixelSource,
    scales: ScaleSet,
    area: BlockArea | None = None,
) -> PreparedBlock:
    """Plan a block and read its regions: each pixel once per scale in use, however many patches share it.

    Passes that meet no pixel of the block that is looked at (`area`, None for everything) are left out.
    """
    planned = planner.passes(block, foveation)
    kept = planned if area is None else [passes.select(area.meets(passes.supports)) for passes in planned]
    groups = [PassGroup(passes, read_regions(passes, source, scales)) for passes in kept]
    return PreparedBlock(block, groups, begun_in(planned, block, area), area)


def read_regions(passes: Passes, source: PixelSource, scales: ScaleSet) -> dict[int, Region]:
    """The part of the image that the passes look at, by the scales they use."""
    used = [scale for scale in range(len(scales)) if bool((passes.scale_weights[:, scale] > 0).any())]
    return {scale: _read_region(passes, scale, source, scales) for scale in used}


def patch_windows(supports: Windows, side: int) -> Windows:
    """The windows of this side around the centres of the supports."""
    shift = (supports.side - side) // 2
    return Windows(supports.top + shift, supports.left + shift, side)


def mixed_patches(passes: Passes, regions: dict[int, Region], scales: ScaleSet) -> Tensor:
    """The input of each pass, (N, C, P, P) in the file's range: its scales' patches times their weights."""
    mixed: Tensor | None = None
    for scale, region in regions.items():
        weights = passes.scale_weights[:, scale]
        rows = torch.nonzero(weights > 0)[:, 0]
        if len(rows) == 0:
            continue
        tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
        device = region.pixels.device
        patches = extract_patches(
            region, Windows(tops[rows].to(device), lefts[rows].to(device), side), scales.patch_size
        )
        if len(rows) == len(passes) and bool((weights == 1).all()):
            return patches  # there is nothing to mix
        if mixed is None:
            mixed = patches.new_zeros(len(passes), *patches.shape[1:], dtype=torch.float32)
        mixed.index_add_(0, rows.to(device), patches * weights[rows].to(device).view(-1, 1, 1, 1))
    assert mixed is not None  # every pass looks at some scale
    return mixed


def _read_region(passes: Passes, scale: int, source: PixelSource, scales: ScaleSet) -> Region:
    rows = passes.scale_weights[:, scale] > 0
    tops, lefts, side = patch_windows(passes.supports, scales.fields_of_view[scale])
    downsample = region_downsample(scales.downsample(scale))
    window = region_window(Windows(tops[rows], lefts[rows], side), downsample)
    size = Size(window.height // downsample, window.width // downsample)
    return Region(source.read(window, size), window.top // downsample, window.left // downsample, downsample)
