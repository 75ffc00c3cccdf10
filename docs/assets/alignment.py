"""Draw alignment.png: which part of a wide patch's output is the prediction of the target.

Usage: python docs/assets/alignment.py
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from places import COLORS, VIEWS, bare, frame, pieces

from foveate import ScaleSet, Size, Window
from foveate.patches import crop_central, resize_logits

SCALES = ScaleSet(64, (64, 128, 256))
TARGET = Window(1330, 3175, 64, 64)
WIDE = SCALES.window(TARGET, 2)


def main() -> None:
    patch, scene, truth = pieces([(WIDE, Size.square(64)), (WIDE, Size.square(256)), (TARGET, Size.square(64))])
    # A perfect network: its output for the wide patch is the label, at the patch's size.
    output = F.one_hot(torch.from_numpy(patch.labels.astype("int64")), 3).permute(2, 0, 1)[None].float()
    aligned = crop_central(output, SCALES.target / WIDE.width, SCALES.target)
    paper = resize_logits(output, SCALES.target)
    figure = Figure(figsize=(8, 5.9), dpi=110, layout="constrained")
    shown = [
        (scene.picture, f"a wide window, {WIDE.width} px,\nand the target, {SCALES.target} px", VIEWS[2]),
        (patch.picture, "the patch: what\nthe network sees, 64 x 64", VIEWS[2]),
        (COLORS[output[0].argmax(0).numpy()], "a perfect network's\noutput for the patch", VIEWS[2]),
        (COLORS[aligned[0].argmax(0).numpy()], "aligned: its central\npart, resampled", VIEWS[0]),
        (COLORS[truth.labels], "what it should be:\nthe label of the target", VIEWS[0]),
        (COLORS[paper[0].argmax(0).numpy()], "paper: all of it,\nas if it were the target", VIEWS[0]),
    ]
    for axes, (pixels, title, color) in zip(figure.subplots(2, 3).flat, shown, strict=True):
        axes.imshow(pixels, interpolation="nearest", extent=(0, 1, 1, 0))
        bare(axes, title)
        frame(axes, color)
    share = SCALES.target / WIDE.width
    for axes in (figure.axes[0], figure.axes[2]):
        axes.add_patch(Rectangle(((1 - share) / 2,) * 2, share, share, fill=False, color=VIEWS[0], linewidth=2.5))
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
