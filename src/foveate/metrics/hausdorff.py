"""How far a predicted boundary lies from the true one: the 95 % Hausdorff distance of every class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from foveate.membership import Membership
from foveate.metrics.scores import mean_of, without_nan

PERCENTILE = 95


@dataclass(frozen=True, slots=True)
class ClassDistance:
    """The distance of one class over several images.

    Attributes:
        name: the class.
        mean: over the images that have the class in label and prediction, level-0 pixels; NaN when there is none.
        images: number of these images.
        undefined: number of images that have the class in only one of both, where there is no distance.
    """

    name: str
    mean: float
    images: int
    undefined: int


@dataclass(frozen=True, slots=True)
class Distances:
    """The distances of a data set.

    Attributes:
        mean: of the classes' means, level-0 pixels.
        largest_step: of the grids that were compared, level-0 pixels; a distance is known to about this.
        classes: in the order of the class ids.
    """

    mean: float
    largest_step: int
    classes: tuple[ClassDistance, ...]

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON, where NaN is null."""
        tree: dict[str, Any] = without_nan(asdict(self))
        return tree


def hausdorff_distances(
    prediction: Tensor, labels: Tensor, classes: int, membership: Membership, step: int = 1
) -> list[float]:
    """The 95 % Hausdorff distance of every class in one image.

    The larger of two numbers: 95 % of the predicted boundary's pixels lie at most so far from the true boundary, and
    the other way round. Pixels that are not counted belong to no class on both sides, so they end a class alike.

    Args:
        prediction: (H, W) labels as `Membership.decided` gives them.
        labels: (H, W).
        classes: number of classes.
        membership: how labels are read.
        step: distance between neighbours of the given grid, level-0 pixels.

    Returns:
        Level-0 pixels per class: NaN for a class in neither, infinite for one in only one of both.
    """
    guess, truth = prediction.numpy(), labels.numpy()
    counted = truth != membership.ignore_index
    masks = zip(membership.planes(guess, classes), membership.planes(truth, classes), strict=True)
    return [_distance(counted & guess, counted & truth, step) for guess, truth in masks]


def mean_distances(images: Sequence[Sequence[float]], names: Sequence[str], largest_step: int) -> Distances:
    """Means over images, from the distances per image and class that `hausdorff_distances` gives."""
    classes = tuple(_class_distance(name, [image[i] for image in images]) for i, name in enumerate(names))
    return Distances(mean_of([c.mean for c in classes if c.images]), largest_step, classes)


def _class_distance(name: str, values: list[float]) -> ClassDistance:
    known = [value for value in values if math.isfinite(value)]
    return ClassDistance(name, mean_of(known), len(known), sum(math.isinf(value) for value in values))


def _distance(guess: NDArray[np.bool_], truth: NDArray[np.bool_], step: int) -> float:
    if not guess.any() or not truth.any():
        return math.inf if guess.any() or truth.any() else math.nan
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (guess, truth)]
    far = (ndimage.distance_transform_edt(~to)[of] for of, to in (edges, edges[::-1]))
    return step * max(float(np.percentile(distances, PERCENTILE)) for distances in far)
