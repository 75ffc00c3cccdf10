"""The training item: the windows of one place, what the policy and the network need of them, and how it is changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from numpy.random import Generator

from foveate.data.labels import LabelReader
from foveate.data.readers.pyramid import ImageReader
from foveate.data.sections import AugmentationConfig
from foveate.errors import GeometryError
from foveate.geometry import CellGrid, Raster, Size, Window
from foveate.patches import ScaleSet, assembled, overview_window

_RASTERS = ("overview", "patches", "label", "window_labels")
# From a window to a cell in it, or from None to one anywhere in the image; windows in level-0 pixels.
DrawCell: TypeAlias = Callable[[Window | None], Window]


class Planned(NamedTuple):
    """A window to be read."""

    scale: int  # index of its field of view
    window: Window  # level-0 pixels
    parent: int = -1  # place in the location of the window that it lies in, whose look gives it context; -1 for none


class Nesting(NamedTuple):
    """How many windows a location has."""

    closer: int  # of each look but the widest, inside the wide window
    elsewhere: int = 0  # further wide windows, without closer ones, from all of the image


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

    overview: torch.Tensor
    patches: torch.Tensor
    label: torch.Tensor
    window_labels: torch.Tensor
    scales: torch.Tensor
    nesting: torch.Tensor
    place: torch.Tensor = torch.empty(0, 5, dtype=torch.int64)


class LocationBatch(Location):
    """N locations, possibly of several images: what a `Location` has, each with a first axis N.

    The `place` is (0, 5) where it is not known.
    """

    @classmethod
    def stack(cls, locations: Sequence[Location]) -> Self:
        """One batch of single locations."""
        return cls(*(torch.stack(parts) for parts in zip(*locations, strict=True)))

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """One batch of several, in order."""
        return cls(*(torch.cat(parts) for parts in zip(*batches, strict=True)))

    def of_image(self, number: int) -> Self:
        """The same, all of one image, by its place in its split."""
        self.place[:, 0] = number
        return self


def drawn_windows(
    rng: Generator, cell: Window, scales: ScaleSet, nesting: Nesting, image: Size, draw: DrawCell
) -> list[Planned]:
    """Windows around a cell: the wide one anywhere around the closest, which is centred on the cell.

    The other closest windows are centred on cells drawn inside the wide window. Each has windows of its own between. A
    wide window reaches beyond the image's border by a quarter at most, where that can be.

    Returns:
        The wide window, those elsewhere, then look by look the closer ones.
    """
    widest = len(scales) - 1
    side = scales.fields_of_view[widest]
    first = scales.window(cell, 0)
    wide = _around(rng, first, side, image)
    elsewhere = [_around(rng, scales.window(draw(None), 0), side, image) for _ in range(nesting.elsewhere)]
    closest = [first, *(_pushed(scales.window(draw(wide), 0), wide) for _ in range(nesting.closer - 1))]
    planned = [Planned(widest, window) for window in (wide, *elsewhere)]
    parents = [0] * nesting.closer
    for scale in reversed(range(widest)):
        view = scales.fields_of_view[scale]
        windows = [_between(rng, one, view, planned[p].window) for one, p in zip(closest, parents, strict=True)]
        begin = len(planned)
        planned += [Planned(scale, window, p) for window, p in zip(windows, parents, strict=True)]
        parents = list(range(begin, len(planned)))
    return planned


def windows_as_predicted(cell: Window, scales: ScaleSet) -> list[Planned]:
    """A window of every look, widest first, each in the one before: those that prediction without margins looks at.

    The closest one is centred on the cell, level-0 pixels.
    """
    closest = scales.window(cell, 0)
    planned: list[Planned] = []
    for scale in reversed(range(len(scales))):
        side = scales.fields_of_view[scale]
        top, left = (start + scales.target // 2 for start in (closest.top, closest.left))
        tile = Window(top // side * side, left // side * side, side, side)
        reach = _reach(closest, side)
        window = _pushed(tile, reach)
        if planned:
            window = _pushed(_pushed(window, planned[-1].window), reach)
        planned.append(Planned(scale, window, len(planned) - 1))
    return planned


def nesting_of(planned: Sequence[Planned]) -> torch.Tensor:
    """Where windows lie in their parents, (M, 4) int64: place of the parent, top, left, and side left over.

    The first is -1, and the others 0, for a window without a parent.
    """
    rows = []
    for one in planned:
        if one.parent < 0:
            rows.append((-1, 0, 0, 0))
            continue
        outer = planned[one.parent].window
        slack = outer.height - one.window.height
        rows.append((one.parent, one.window.top - outer.top, one.window.left - outer.left, slack))
    return torch.tensor(rows)


def moved_nesting(nesting: torch.Tensor, vertical: bool, horizontal: bool, turns: int) -> torch.Tensor:
    """The nesting (M, 4) after every window was mirrored, then turned counter-clockwise by quarters, in itself."""
    parent, top, left, slack = nesting.unbind(dim=1)
    top = slack - top if vertical else top
    left = slack - left if horizontal else left
    for _ in range(turns % 4):
        top, left = slack - left, top
    return torch.stack([parent, top, left, slack], dim=1)


def _around(rng: Generator, inner: Window, side: int, image: Size) -> Window:
    """A window of this side anywhere around another, not far beyond the image where that can be."""
    starts, beyond = list[int](), side // 4
    for (low, high), whole in zip(_reach(inner, side).ranges, (image.height, image.width), strict=True):
        near = max(low, -beyond), min(high, whole + beyond)
        first, last = near if near[1] - near[0] >= side else (low, high)
        starts.append(int(rng.integers(first, last - side, endpoint=True)))
    return Window(starts[0], starts[1], side, side)


def _between(rng: Generator, inner: Window, side: int, outer: Window) -> Window:
    """A window of this side anywhere around one and inside another."""
    within = _reach(inner, side).intersection(outer) or outer
    top, left = (int(rng.integers(low, high - side, endpoint=True)) for low, high in within.ranges)
    return Window(top, left, side, side)


def _pushed(window: Window, outer: Window) -> Window:
    """The window as far into another as it needs to lie inside."""
    top = min(max(window.top, outer.top), outer.bottom - window.height)
    left = min(max(window.left, outer.left), outer.right - window.width)
    return Window(top, left, window.height, window.width)


def _reach(inner: Window, side: int) -> Window:
    """What all windows of this side that hold another cover together."""
    rows, cols = 2 * side - inner.height, 2 * side - inner.width
    return Window(inner.bottom - side, inner.right - side, rows, cols)


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
    overview = image.read(*overview_window(Window(row, col, 1, 1), spec.overview_downsample, spec.policy_margin))
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


def _patch(image: ImageReader, planned: Planned, scales: ScaleSet, channels: Sequence[int]) -> torch.Tensor:
    """(C, P, P), of a window."""
    parts = scales.parts(planned.scale)
    pictures = (image.read(planned.window.centred(view), Size.square(pixels))[channels] for view, pixels in parts)
    return assembled([_as_batchable(picture) for picture in pictures], scales)


def _as_batchable(raster: Raster) -> torch.Tensor:
    return torch.from_numpy(raster if raster.dtype == np.uint8 else raster.astype(np.float32))


class Augmentation:
    """Mirrors, turns and recolours locations, by the largest raw value; recoloured floats are clamped to [0, scale]."""

    def __init__(self, config: AugmentationConfig, scale: float) -> None:
        self._config, self._scale = config, scale
        self._jitter: Callable[..., Any] | None = None
        self._in_colour = len(config.color_jitter) > 2
        if config.color_jitter:
            self._jitter = import_module("torchvision.transforms.v2").ColorJitter(*config.color_jitter)

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

    def _recoloured(self, location: Location, jitter: Callable[..., Any], seed: int) -> Location:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs too.
            torch.default_generator.manual_seed(seed)
            overview, patches = jitter(self._coloured(location.overview), self._coloured(location.patches))
        return location._replace(
            overview=self._raw(overview, location.overview), patches=self._raw(patches, location.patches)
        )

    def _coloured(self, pixels: torch.Tensor) -> Any:
        """As torchvision wants it: floats in [0, 1], and channels that are no colours as images of their own.

        The contrast of colours is around the grey of all three, which of stains is that of the brightest.
        """
        values = pixels / self._scale if pixels.is_floating_point() else pixels
        return import_module("torchvision.tv_tensors").Image(values if self._in_colour else values.unsqueeze(-3))

    def _raw(self, image: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = image.as_subclass(torch.Tensor).reshape(original.shape)
        return values * self._scale if original.is_floating_point() else values


def _moved(pixels: torch.Tensor, vertical: bool, horizontal: bool, turns: int) -> torch.Tensor:
    axes = [axis for axis, flip in ((-2, vertical), (-1, horizontal)) if flip]
    flipped = torch.flip(pixels, axes) if axes else pixels
    return torch.rot90(flipped, turns, (-2, -1)).contiguous()
