"""The training item: what the policy and the network need of one place, read from the file and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from foveate.data.labels import LabelReader
from foveate.data.readers.pyramid import ImageReader
from foveate.data.sampling import Nesting, Planned, moved_nesting, nesting_of
from foveate.data.sections import AugmentationConfig
from foveate.errors import GeometryError
from foveate.geometry import CellGrid, Size, Window
from foveate.patches.extraction import overview_window
from foveate.patches.scales import ScaleSet, assembled
from foveate.types import Raster

_RASTERS = ("overview", "patches", "label", "window_labels")


@dataclass(frozen=True, slots=True)
class LocationSpec:
    """What is read at a location.

    Attributes:
        scales: the fields of view.
        overview_downsample: level-0 pixels per overview pixel s; also the side of a cell.
        policy_margin: overview pixels r that the policy sees to each side of its cell: the policy takes no padding,
            so a crop of 2r + 1 pixels is all that one cell's decision depends on.
        scales_read: indices of the scales whose patches are read, ascending; fixed-scale training reads one.
        window_labels: whether the labels of the patches' whole windows are read too.
        nesting: of a cascade, how many nested windows a training location has; None for windows around one centre.
        draws_scale: whether a training location is read at one of the scales only, drawn by chance.

    Raises:
        GeometryError: when a scale index is not in `scales`, or a number is out of range.
    """

    scales: ScaleSet
    overview_downsample: int
    policy_margin: int
    scales_read: tuple[int, ...]
    window_labels: bool = False
    draws_scale: bool = False
    nesting: Nesting | None = None

    def __post_init__(self) -> None:
        if self.overview_downsample < 1 or self.policy_margin < 0:
            raise GeometryError(
                f"overview_downsample must be at least 1 and policy_margin at least 0, "
                f"got {self.overview_downsample} and {self.policy_margin}"
            )
        if not self.scales_read or not set(self.scales_read) <= set(range(len(self.scales))):
            raise GeometryError(f"scales_read must be indices 0 to {len(self.scales) - 1}, got {self.scales_read}")


class Location(NamedTuple):
    """One place; uint8 images stay uint8, so that workers send little, others become float32. Not normalised.

    Attributes:
        overview: (C, 2r+1, 2r+1) overview pixels around the cell.
        patches: (S', C, P, P), one for each scale read.
        label: (T, T) uint8 class ids of the target, at level 0.
        window_labels: (S', P, P) uint8 class ids over each patch's window, or (0, P, P) where not asked for.
        scales: (S',) int64, the scale of each patch.
        nesting: (S', 4) int64, where its window lies: place of the patch whose window it lies in (-1 for none), its top
            and left in that window, and the difference of their sides, level-0 pixels.
        place: (5,) int64, where it lies: place of the image in its split, and top, left, height and width of its widest
            window, level-0 pixels.
    """

    overview: Tensor
    patches: Tensor
    label: Tensor
    window_labels: Tensor
    scales: Tensor
    nesting: Tensor
    place: Tensor = torch.empty(0, 5, dtype=torch.int64)


class LocationBatch(Location):
    """N locations, possibly of several images: what a `Location` has, each with a first axis N.

    The `place` is (0, 5) where it is not known.
    """

    @classmethod
    def stack(cls, locations: Sequence[Location]) -> LocationBatch:
        """One batch of single locations."""
        return cls(*(torch.stack(parts) for parts in zip(*locations, strict=True)))

    @classmethod
    def concatenate(cls, batches: Sequence[LocationBatch]) -> LocationBatch:
        """One batch of several, in order."""
        return cls(*(torch.cat(parts) for parts in zip(*batches, strict=True)))

    def of_image(self, number: int) -> LocationBatch:
        """The same, all of one image, by its place in its split."""
        self.place[:, 0] = number
        return self


def read_overview(image: ImageReader, cells: Window, downsample: int, margin: int) -> Raster:
    """The overview over a window of cells and so many overview pixels around it; one overview pixel is one cell.

    Training crops and the whole overview of inference are both read by this, so that they hold the same pixels.

    Returns:
        (bands, cells.height + 2 margin, cells.width + 2 margin) in the file's dtype; mirrored outside the image.
    """
    window, size = overview_window(cells, downsample, margin)
    return image.read(window, size)


def read_location(
    image: ImageReader,
    labels: LabelReader,
    cell: tuple[int, int],
    spec: LocationSpec,
    channels: Sequence[int],
    planned: Sequence[Planned] | None = None,
) -> Location:
    """Read what training needs of one cell (row, col): by default the windows of the spec's scales around it.

    The channels are 0-based bands, from `select_channels`.
    """
    row, col = cell
    around = CellGrid(image.size, spec.overview_downsample).window(row, col)
    overview = read_overview(image, Window(row, col, 1, 1), spec.overview_downsample, spec.policy_margin)
    side = Size.square(spec.scales.patch_size)
    planned = planned or [Planned(scale, spec.scales.window(around, scale)) for scale in spec.scales_read]
    patches = [_patch(image, one, spec.scales, channels) for one in planned]
    own = [torch.from_numpy(labels.read(one.window, side)) for one in planned if spec.window_labels]
    widest = max((one.window for one in planned), key=lambda window: window.height)
    return Location(
        _as_batchable(overview[channels]),
        torch.stack(patches),
        torch.from_numpy(labels.read(spec.scales.window(around, 0))),
        torch.stack(own) if own else torch.empty(0, side.height, side.width, dtype=torch.uint8),
        torch.tensor([one.scale for one in planned]),
        nesting_of(planned),
        torch.tensor([0, widest.top, widest.left, widest.height, widest.width]),
    )


def _patch(image: ImageReader, planned: Planned, scales: ScaleSet, channels: Sequence[int]) -> Tensor:
    """(C, P, P), of a window."""
    parts = scales.parts(planned.scale)
    pictures = (image.read(planned.window.centred(view), Size.square(pixels))[channels] for view, pixels in parts)
    return assembled([_as_batchable(picture) for picture in pictures], scales)


def _as_batchable(raster: Raster) -> Tensor:
    return torch.from_numpy(raster if raster.dtype == np.uint8 else raster.astype(np.float32))


class Augmentation:
    """Mirrors, turns and recolours locations, by the largest raw value; recoloured floats are clamped to [0, scale]."""

    def __init__(self, config: AugmentationConfig, scale: float) -> None:
        self._config, self._scale = config, scale
        self._jitter = v2.ColorJitter(*config.color_jitter) if config.color_jitter else None

    def __call__(self, location: Location, rng: Generator) -> Location:
        """A changed copy; every draw comes from `rng`, and no global generator is touched."""
        # All draws are made whatever is switched on: one switch does not change what the others draw.
        orientations = self._config.orientations
        vertical, horizontal = rng.random(2) < 0.5
        turns, seed = int(rng.integers(4)), int(rng.integers(2**63))
        how = (
            bool(vertical) and orientations in ("d4", "flips"),
            bool(horizontal) and orientations != "none",
            turns if orientations == "d4" else 0,
        )
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
