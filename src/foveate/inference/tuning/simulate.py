"""How well a way of looking does on sampled images, without another pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.inference.planning.budget import closer_looks, passes_allowed, price_for
from foveate.inference.planning.gain import gains_of
from foveate.inference.planning.pyramid import PyramidGrid
from foveate.inference.predicting.class_ids import class_ids
from foveate.inference.tuning.candidates import Candidate
from foveate.inference.tuning.samples import IGNORED, SampledImage
from foveate.metrics.confusion import confusion_matrix
from foveate.patches.extraction import Windows


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
    grid = PyramidGrid.of(image.size, candidate.looks)
    chosen = _chosen(image, candidate, grid, budget, target)
    passes = len(grid.roots.top) + sum(int(supports.sum()) for supports in chosen)
    prediction = fused(image, candidate, [_at_samples(image, s, grid.sides[level]) for level, s in enumerate(chosen)])
    matrix = confusion_matrix(len(image.probabilities[candidate.looks[-1]]), IGNORED)
    matrix.update(prediction[None], image.labels[None])
    return Outcome(matrix.compute(), passes)


def fused(image: SampledImage, candidate: Candidate, seen: Sequence[Tensor]) -> Tensor:
    """Class ids (n, m) uint8 by the weighted mean of the looks made at every sample.

    Args:
        image: the samples.
        candidate: L looks and their weights.
        seen: L - 1 masks (n, m), where each look but the widest was made.
    """
    weights = torch.tensor(candidate.fusion)[..., None, None]
    made = [*seen, torch.ones_like(image.labels)]
    total, sums = torch.zeros(()), torch.zeros(())
    # From the widest on, as the planner adds them up.
    for look, weight, where in reversed(list(zip(candidate.looks, weights, made, strict=True))):
        counted = weight * where
        total = total + counted * image.probabilities[look].float()
        sums = sums + counted
    return class_ids(total / sums)


def _chosen(
    image: SampledImage, candidate: Candidate, grid: PyramidGrid, budget: float | str, target: int
) -> list[Tensor]:
    """Where each look but the widest is made: a mask of its supports (rows, cols)."""
    wide = image.probabilities[candidate.looks[-1]].float()
    entropy = -(wide * wide.clamp(min=1e-7).log()).sum(dim=0)
    gains = [_gains(image, entropy, side, grid) for side in grid.sides[:-1]]
    if budget == "all":
        return [torch.ones_like(gain, dtype=torch.bool) for gain in gains]
    # Blocks without a label were not looked at; their share of the budget is not spent elsewhere.
    seen = float((wide.sum(dim=0) > 0).float().mean())
    allowed = round(seen * closer_looks(passes_allowed(budget, grid.roots, image.size, target), grid.roots, image.size))
    price = price_for(torch.cat([torch.empty(0), *(gain.flatten() for gain in gains)]), allowed)
    return [gain > price for gain in gains]


def _gains(image: SampledImage, entropy: Tensor, side: int, grid: PyramidGrid) -> Tensor:
    """Gain of a look at every support of a side, (rows, cols): see `PyramidPredictor`."""
    rows, cols = (int(positions[-1]) // side + 1 for positions in (image.rows, image.cols))
    place = (image.rows // side)[:, None] * cols + image.cols // side
    sums, counts = (
        torch.zeros(rows * cols).index_add_(0, place.flatten(), values.flatten())
        for values in (entropy, torch.ones_like(entropy))
    )
    corners = torch.cartesian_prod(torch.arange(rows) * side, torch.arange(cols) * side).reshape(-1, 2)
    supports = Windows(corners[:, 0], corners[:, 1], side)
    return gains_of(sums / counts.clamp(min=1), supports, grid.sides[0], image.size).view(rows, cols)


def _at_samples(image: SampledImage, supports: Tensor, side: int) -> Tensor:
    return supports[image.rows // side][:, image.cols // side]
