"""Fit how much each look counts for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.inference.planning.pyramid import PyramidLook
from foveate.inference.predicting.fusion import closest_most
from foveate.inference.tuning.samples import IGNORED, SampledImage

_SAMPLES = 2**17
_STEPS = 150
_RATE = 0.05
# How strongly weights are drawn to those of which each closer look counts ten times as much as the next wider one.
_PRIOR = 1e-3


def fit_fusion(
    images: Sequence[SampledImage], looks: Sequence[PyramidLook], generator: torch.Generator
) -> tuple[tuple[float, ...], ...]:
    """Weights (L, C) with which the mean of L looks' probabilities predicts the labels best.

    Which look is to be believed depends on the class: the wide one where surroundings tell, the close one where texture
    does. The sum of cross entropy and Dice loss is minimised over the weights' logarithms; the
    Dice loss stands for the mean IoU, in which rare classes count as much as common ones.

    Args:
        images: with samples of all looks.
        looks: smallest kept part first.
        generator: draws the samples that are used, at most 2 ** 17.

    Returns:
        One row a look, one number a class; those of a class sum to one over the looks.
    """
    probabilities, labels = _drawn(images, looks, generator)
    prior = torch.tensor(closest_most(len(looks))).log()[:, None].expand(-1, probabilities.shape[1])
    logarithms = prior.clone().requires_grad_()
    optimizer = torch.optim.Adam([logarithms], _RATE)
    truth = F.one_hot(labels, probabilities.shape[1]).T.float().contiguous()
    for _ in range(_STEPS):
        loss = _loss(probabilities, logarithms.softmax(dim=0), truth) + _PRIOR * ((logarithms - prior) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return tuple(tuple(row) for row in logarithms.detach().softmax(dim=0).clamp(min=1e-6).tolist())


def _drawn(
    images: Sequence[SampledImage], looks: Sequence[PyramidLook], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Probabilities (L, C, n) and labels (n,) of labelled samples, from each image in proportion."""
    known = [(image.labels != IGNORED).flatten().nonzero()[:, 0] for image in images]
    share = min(1.0, _SAMPLES / max(1, sum(map(len, known))))
    picked = [k[torch.randperm(len(k), generator=generator)[: round(share * len(k))]] for k in known]
    parts = [
        torch.stack([image.probabilities[look].flatten(1)[:, where].float() for look in looks])
        for image, where in zip(images, picked, strict=True)
    ]
    labels = [image.labels.flatten()[where] for image, where in zip(images, picked, strict=True)]
    return torch.cat(parts, dim=2), torch.cat(labels)


def _loss(probabilities: Tensor, weights: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy plus Dice loss of the classes there are; probabilities (L, C, n), weights (L, C), truth (C, n)."""
    mean = (probabilities * weights[..., None]).sum(dim=0)
    mean = mean / mean.sum(dim=0).clamp(min=1e-6)
    of_label = mean * truth
    counts = truth.sum(dim=1)
    there = counts > 0
    dice = 2 * of_label.sum(dim=1) / (mean.sum(dim=1) + counts).clamp(min=1e-6)
    return -of_label.sum(dim=0).clamp(min=1e-6).log().mean() + (1 - dice[there]).mean()
