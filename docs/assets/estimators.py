"""Draw estimators.png: what each estimator makes of the same logits at one place.

Usage: python docs/assets/estimators.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from places import VIEWS, bare, pieces

from foveate import GumbelSoftmax, Mixture, ScaleSet, Size, Window
from foveate.foveation import Draw, ScoreFunction, SoftExpectation, StraightThroughArgmax, UniformAverage

SCALES = ScaleSet(64, (64, 128, 256))
TARGET = Window(1330, 3175, 64, 64)
LOGITS = torch.tensor([[0.2, 1.0, -0.4]])
SEED = 9  # of the samples of gumbel and score_function
ESTIMATORS = {
    "mean": SoftExpectation(),
    "mode": StraightThroughArgmax(),
    "gumbel_soft": GumbelSoftmax(name="gumbel_soft"),
    "score_function": ScoreFunction(),
    "mixture": Mixture(),
    "average": UniformAverage(),
}


def main() -> None:
    patches = [p.picture for p in pieces([(SCALES.window(TARGET, s), Size.square(64)) for s in range(3)])]
    figure = Figure(figsize=(10, 5.1), dpi=110, layout="constrained")
    grid = figure.subplots(3, len(ESTIMATORS) + 1, height_ratios=(0.7, 1, 1))
    probabilities = LOGITS.softmax(dim=-1)[0]
    bars(grid[0, 0], probabilities, "the policy's\nweights")
    for axes, s in zip(grid[1:, 0], (0, 2), strict=True):
        axes.imshow(patches[s])
        bare(axes, f"patch of {SCALES.fields_of_view[s]} px")
    for column, (name, estimator) in zip(grid.T[1:], ESTIMATORS.items(), strict=True):
        weights = estimator.weights(LOGITS, Draw(0.0, torch.Generator().manual_seed(SEED)))[0].detach()
        look = estimator.looks(LOGITS)[0].scale_weights[0]
        bars(column[0], weights, name if "\n" in name else f"{name}\n")
        if name == "mixture":
            strips(column[1], patches)
            bare(column[1], "training: each\nalone")
        else:
            column[1].imshow(mixed(patches, weights))
            bare(column[1], "training\n")
        column[2].imshow(mixed(patches, look))
        bare(column[2], "inference")
    figure.savefig(Path(__file__).with_suffix(".png"))


def bars(axes, weights: torch.Tensor, title: str) -> None:
    axes.bar(range(len(weights)), weights.numpy(), color=VIEWS)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(weights)), SCALES.fields_of_view, fontsize=8)
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)


def mixed(patches: list[np.ndarray], weights: torch.Tensor) -> np.ndarray:
    """The weighted sum of the patches."""
    return np.tensordot(weights.numpy(), np.stack(patches), axes=1).round().astype(np.uint8)


def strips(axes, patches: list[np.ndarray]) -> None:
    """The patches, one above the other, each a third."""
    axes.imshow(np.concatenate([patch[21:42] for patch in patches]))
    for row in (20.5, 41.5):
        axes.axhline(row, color="white", linewidth=3)


if __name__ == "__main__":
    main()
