"""Tuning: what every look says at evenly spread pixels, and how well a way of looking does there."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from foveate.data.labels import LabelReader
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.field import Fusion
from foveate.inference.pipeline import finished_blocks
from foveate.inference.plan import BlockGrid, block_side
from foveate.inference.source import PixelSource
from foveate.looks import pyramid
from foveate.membership import Membership
from foveate.metrics import confusion_matrix
from foveate.patches.extraction import Windows
from foveate.segmenter import FoveatedSegmenter

Looks: TypeAlias = tuple[pyramid.PyramidLook, ...]

_MOST_BYTES = 2**30
_CLOSEST = 4


@dataclass(frozen=True, slots=True)
class SampledImage:
    """An image at n x m pixels of a regular grid.

    Attributes:
        size: of the image.
        rows: (n,) level-0 rows of the grid.
        cols: (m,) level-0 columns.
        labels: (n, m).
        membership: how they are read.
        probabilities: of every look made everywhere, (C, n, m), half precision; by what was looked at, see
            `Candidate.made`.
    """

    size: Size
    rows: Tensor
    cols: Tensor
    labels: Tensor
    membership: Membership
    probabilities: dict[Looks, Tensor]

    def inside(self, window: Window) -> tuple[slice, slice]:
        """The rows and columns of the grid inside a window of the image."""
        rows = torch.searchsorted(self.rows, torch.tensor([window.top, window.bottom])).tolist()
        cols = torch.searchsorted(self.cols, torch.tensor([window.left, window.right])).tolist()
        return slice(*rows), slice(*cols)


def sampling_step(sizes: Sequence[Size], classes: int, looks: int) -> int:
    """Pixels between samples: 4, or more where the samples of all images would take more than 1 GiB."""
    numbers = 2 * classes * looks * sum(size.pixels for size in sizes)
    return max(_CLOSEST, math.ceil(math.sqrt(numbers / _MOST_BYTES)))


def sample_labels(
    labels: LabelReader, size: Size, block_size: int, *, step: int, membership: Membership
) -> SampledImage:
    """The grid of an image and what is labelled there; no look yet.

    Args:
        labels: the mask.
        size: of the image.
        block_size: side of the windows that are read, level-0 pixels.
        step: level-0 pixels between the rows, and columns, of the grid.
        membership: how labels are read.
    """
    rows, cols = (torch.arange(min(step // 2, side - 1), side, step) for side in (size.height, size.width))
    ids = torch.full((len(rows), len(cols)), membership.ignore_index)
    image = SampledImage(size, rows, cols, ids, membership, {})
    for window in BlockGrid(size, block_size):
        here, there = image.inside(window)
        read = torch.from_numpy(labels.read(window)).long()
        ids[here, there] = read[rows[here] - window.top][:, cols[there] - window.left]
    return image


def sample_look(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    image: SampledImage,
    looks: Looks,
    config: InferenceConfig,
    classes: int,
) -> Tensor:
    """Look at an image in one way everywhere, and keep what the closest look predicts at its grid.

    Blocks without a label at the grid are left out.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        image: its grid.
        looks: the closest, and of a cascade the wider ones that give it context.
        config: of inference; its planner, looks and budget are replaced.
        classes: number of classes C.

    Returns:
        Probabilities (C, n, m), half precision; zeros in blocks that were left out.
    """
    counting = (1.0,) + (0.0,) * (len(looks) - 1)
    alone = config.model_copy(update={"planner": "pyramid", "looks": looks, "budget": "all", "fusion": counting})
    found = torch.zeros(classes, *image.labels.shape, dtype=torch.float16)
    least = torch.finfo(torch.float16).tiny  # what was looked at is told from what was not
    for done in finished_blocks(segmenter, source, alone, blocks=_labelled_blocks(image, looks, config)):
        here, there = image.inside(done.window)
        assert done.logits is not None  # all of the image is looked at
        picked = done.logits[:, image.rows[here] - done.window.top][:, :, image.cols[there] - done.window.left]
        shares = image.membership.probabilities(picked, dim=0)
        found[:, here, there] = shares.half().clamp(min=least).cpu()
    return found


def _labelled_blocks(image: SampledImage, looks: Looks, config: InferenceConfig) -> Iterator[Window]:
    side = block_side(config.block_size, 1, pyramid.PyramidGrid.of(image.size, looks).sides[-1])
    for window in BlockGrid(image.size, side):
        if bool((image.labels[image.inside(window)] != image.membership.ignore_index).any()):
            yield window


KEEPS = (0.5, 1.0)
_ALONE = (0.5, 0.75, 1.0)  # of one look alone: three quarters gain most of what a margin does, for less than two passes


class Candidate(NamedTuple):
    """A way of looking.

    Attributes:
        looks: smallest kept part first.
        fusion: how much each of them counts.
        cascaded: whether a look depends on the wider ones.
    """

    looks: Looks
    fusion: Fusion
    cascaded: bool = False

    @property
    def made(self) -> list[Looks]:
        """What each look is looked at by, smallest kept part first: it alone, or in a cascade it and all wider ones."""
        return [self.looks[i:] if self.cascaded else (look,) for i, look in enumerate(self.looks)]

    @property
    def is_fixed(self) -> bool:
        """Whether this is one fixed field of view."""
        return len(self.looks) == 1

    def __str__(self) -> str:
        return " + ".join(f"{view} px" + (f" (central {keep:g})" if keep < 1 else "") for view, keep in self.looks)


def least_passes(looks: Looks, image: Size) -> int:
    """Passes that looking at an image once with the widest of the looks costs."""
    return len(pyramid.PyramidGrid.of(image, looks).roots.top)


def ways_of_looking(views: Sequence[int], target: int | None = None) -> list[Looks]:
    """Every field of view alone, whole and with a margin; and closer looks after every wider one.

    The closer looks are whole windows, windows with a margin, or both, the latter where it is most uncertain. Or the
    same view once more, with a wider margin, alone or beside a narrower one: surroundings help as detail does.

    Args:
        views: the fields of view in use, ascending, level-0 pixels.
        target: side of a target, level-0 pixels; the narrowest view by default.

    Returns:
        Looks, smallest kept part first.
    """
    # The central part over one target is what one pass a target uses.
    centre = {view: (target or views[0]) / view for view in views}
    keeps = {view: sorted({centre[view], *KEEPS}) for view in views}
    alone = [[(view, keep)] for view in views for keep in sorted({centre[view], *_ALONE})]
    again = [[(view, few), (view, more)] for view in views for few, more in combinations(keeps[view], 2)]
    pairs = [
        [*((narrow, keep) for keep in closely), (wide, whole)]
        for narrow, wide in combinations(views, 2)
        for whole in KEEPS
        for closely in ((0.5,), (1.0,), (0.5, 1.0))
    ]
    both = [
        [(narrow, 0.5), (wide, centre[wide]), (wide, whole)]
        for narrow, wide in combinations(views, 2)
        for whole in KEEPS
        if centre[wide] < whole
    ]
    return list(dict.fromkeys(pyramid.smallest_first(looks) for looks in (*alone, *again, *pairs, *both)))


def ways_down(views: Sequence[int]) -> list[Looks]:
    """Every field of view of a cascade alone, and every way down: whole windows or their central halves.

    Args:
        views: ascending, level-0 pixels.

    Returns:
        Looks, smallest kept part first; each holds one of each view, the closer ones with the smaller parts.
    """
    chosen = [some for count in range(1, len(views) + 1) for some in combinations(views, count)]
    kept = [
        (some, keeps) for some in chosen for keeps in product(_ALONE if len(some) == 1 else KEEPS, repeat=len(some))
    ]
    ways = [pyramid.smallest_first(zip(some, keeps, strict=True)) for some, keeps in kept]
    return [looks for looks in ways if all(one.view < other.view for one, other in pairwise(looks))]


class Outcome(NamedTuple):
    """What a way of looking came to.

    Attributes:
        counts: (C, C) samples, rows = label, columns = prediction.
        passes: that it made.
    """

    counts: Tensor
    passes: int


def simulate(images: Sequence[SampledImage], candidate: Candidate, budget: float | str, target: int) -> Outcome:
    """Look at images as the pyramid planner would.

    The gain of a closer look is the mean entropy of the wide look over the samples of its support; the planner takes it
    over the network's output there, so places on the verge of a closer look may differ.

    Args:
        images: with the samples of every look of the candidate.
        candidate: looks, and how much each counts.
        budget: passes per megapixel, "fixed" or "all".
        target: side of a target, level-0 pixels.

    Raises:
        ConfigError: when the budget does not pay for the widest look alone.
    """
    outcomes = [_simulate_one(image, candidate, budget, target) for image in images]
    return Outcome(torch.stack([one.counts for one in outcomes]).sum(dim=0), sum(one.passes for one in outcomes))


def _simulate_one(image: SampledImage, candidate: Candidate, budget: float | str, target: int) -> Outcome:
    grid = pyramid.PyramidGrid.of(image.size, candidate.looks)
    chosen = _chosen(image, candidate, grid, budget, target)
    passes = len(grid.roots.top) + sum(int(supports.sum()) for supports in chosen)
    at_samples = [s[image.rows // side][:, image.cols // side] for s, side in zip(chosen, grid.sides, strict=False)]
    prediction = fused(image, candidate, at_samples)
    classes, membership = len(image.probabilities[candidate.made[-1]]), image.membership
    matrix = confusion_matrix(classes, membership)
    matrix.update(*(membership.answers(one[None], classes) for one in (prediction, image.labels)))
    return Outcome(matrix.compute(), passes)


def fused(image: SampledImage, candidate: Candidate, seen: Sequence[Tensor]) -> Tensor:
    """Labels (n, m) by the weighted mean of the looks made at every sample.

    Args:
        image: the samples.
        candidate: L looks and their weights.
        seen: L - 1 masks (n, m), where each look but the widest was made.
    """
    weights = torch.tensor(candidate.fusion)[..., None, None]
    made = [*seen, torch.ones_like(image.labels)]
    total, sums = torch.zeros(()), torch.zeros(())
    # From the widest on, as the planner adds them up.
    for looks, weight, where in reversed(list(zip(candidate.made, weights, made, strict=True))):
        counted = weight * where
        total = total + counted * image.probabilities[looks].float()
        sums = sums + counted
    return image.membership.decided(image.membership.as_logits(total / sums))


def _chosen(
    image: SampledImage, candidate: Candidate, grid: pyramid.PyramidGrid, budget: float | str, target: int
) -> list[Tensor]:
    """Where each look but the widest is made: a mask of its supports (rows, cols)."""
    wide = image.probabilities[candidate.made[-1]].float()
    looked_at = (wide.sum(dim=0) > 0).float()
    entropy = looked_at * image.membership.entropy(image.membership.as_logits(wide.clone()), dim=0)
    gains = [_gains(image, entropy, side, grid) for side in grid.sides[:-1]]
    if budget == "all":
        return [torch.ones_like(gain, dtype=torch.bool) for gain in gains]
    # Blocks without a label were not looked at; their share of the budget is not spent elsewhere.
    seen = float(looked_at.mean())
    allowed = round(
        seen
        * pyramid.closer_looks(pyramid.passes_allowed(budget, grid.roots, image.size, target), grid.roots, image.size)
    )
    price = pyramid.price_for(torch.cat([torch.empty(0), *(gain.flatten() for gain in gains)]), allowed)
    pays = [gain > price for gain in gains]
    for level in reversed(range(len(pays) - 1)) if candidate.cascaded else ():
        (rows, cols), parts = pays[level].shape, grid.sides[level + 1] // grid.sides[level]
        wider = pays[level + 1].repeat_interleave(parts, 0).repeat_interleave(parts, 1)
        pays[level] &= wider[:rows, :cols]  # where the wider support that it lies in is chosen
    return pays


def _gains(image: SampledImage, entropy: Tensor, side: int, grid: pyramid.PyramidGrid) -> Tensor:
    """Gain of a look at every support of a side, (rows, cols): see `Predictor`."""
    rows, cols = (int(positions[-1]) // side + 1 for positions in (image.rows, image.cols))
    place = (image.rows // side)[:, None] * cols + image.cols // side
    sums, counts = (
        torch.zeros(rows * cols).index_add_(0, place.flatten(), values.flatten())
        for values in (entropy, torch.ones_like(entropy))
    )
    corners = torch.cartesian_prod(torch.arange(rows) * side, torch.arange(cols) * side).reshape(-1, 2)
    supports = Windows(corners[:, 0], corners[:, 1], side)
    return pyramid.gains_of(sums / counts.clamp(min=1), supports, grid.sides[0], image.size).view(rows, cols)
