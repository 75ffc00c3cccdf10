"""Draw planning.png: the passes of three ways to cover the same piece of the Earth.

Where the wide look is uncertain is stood in for by the mixture of classes in the label, as no network is trained here.

Usage: python docs/assets/planning.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from places import VIEWS, bare, pieces

from foveate import Size, Window
from foveate.foveation import FixedScale
from foveate.inference import InferenceConfig, looks_of
from foveate.looks import PerTarget, PyramidGrid
from foveate.patches import Windows

SHOWN = Window(1100, 3100, 512, 512)
FIELDS = (64, 128)
BUDGET = 36  # passes of the third panel
SIZE = Size(SHOWN.height, SHOWN.width)


class Anywhere:
    """Stands in for the policy: a fixed scale asks it nothing that matters."""

    def logits_at(self, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(rows), len(FIELDS))


def main() -> None:
    (scene,) = pieces([(SHOWN, SIZE)])
    targets = PerTarget(SIZE, FIELDS[0], 0.0, FixedScale(index=0)).passes(Window.of(SIZE), Anywhere())[0].supports
    # No margins here: every pass is used for its whole window.
    grid = PyramidGrid.of(SIZE, looks_of(InferenceConfig(looks=[(view, 1.0) for view in FIELDS]), FIELDS))
    wide = grid.roots
    close = grid.inside(wide, 0)
    chosen = mixed_first(close, scene.labels)[: BUDGET - len(wide.top)]
    bought = Windows(close.top[chosen], close.left[chosen], close.side)
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    panels = [
        ("per target:\none field of view", [(targets, VIEWS[0])]),
        ("pyramid cover:\nevery look everywhere", [(close, VIEWS[0]), (wide, VIEWS[2])]),
        ("coarse first:\ncloser where it is uncertain", [(bought, VIEWS[0]), (wide, VIEWS[2])]),
    ]
    for axes, (title, windows) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.imshow(scene.picture)
        for supports, color in windows:
            draw(axes, supports, color)
        bare(axes, f"{title}, {sum(len(supports.top) for supports, _ in windows)} passes")
        axes.set_xlim(-4, SIZE.width + 4)
        axes.set_ylim(SIZE.height + 4, -4)
    figure.savefig(Path(__file__).with_suffix(".png"))


def mixed_first(windows: Windows, labels: np.ndarray) -> torch.Tensor:
    """Numbers of the windows, those of the most mixed label first."""
    entropies = []
    for top, left in zip(windows.top.tolist(), windows.left.tolist(), strict=True):
        part = labels[top : top + windows.side, left : left + windows.side]
        shares = np.bincount(part.ravel(), minlength=3) / part.size
        entropies.append(-sum(p * np.log(p) for p in shares if p > 0))
    return torch.tensor(entropies).argsort(descending=True, stable=True)


def draw(axes, windows: Windows, color: str) -> None:
    inset = 3 if color == VIEWS[0] else 0  # so that nested windows do not hide each other
    side = windows.side - 2 * inset
    corners = zip((windows.left + inset).tolist(), (windows.top + inset).tolist(), strict=True)
    squares = [Rectangle(corner, side, side) for corner in corners]
    axes.add_collection(PatchCollection(squares, facecolor="none", edgecolor=color, linewidth=1.6))


if __name__ == "__main__":
    main()
