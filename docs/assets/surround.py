"""Draw surround.png: a patch of a narrow view, of a wide one, and one with a surround, of the same place.

Usage: python docs/assets/surround.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from places import VIEWS, bare, pieces

from foveate import ScaleSet, Size, Window
from foveate.patches import assembled

SCALES = ScaleSet(64, (64, 256), 4)
PLACE = Window(1330, 3175, 64, 64)


def main() -> None:
    parts = SCALES.parts(0)
    wanted = [(PLACE.centred(part.view), Size.square(part.pixels)) for part in parts]
    scene = PLACE.centred(288)
    plain = [(PLACE.centred(view), Size.square(64)) for view in (64, 256)]
    pictures = [piece.picture for piece in pieces([(scene, scene.size), *plain, *wanted])]
    figure = Figure(figsize=(10, 3.1), dpi=110, layout="constrained")
    axes = figure.subplots(1, 4)
    axes[0].imshow(pictures[0])
    for side, color in ((64, VIEWS[0]), (256, VIEWS[2])):
        corner = (scene.width - side) / 2 - 0.5
        axes[0].add_patch(Rectangle((corner, corner), side, side, fill=False, color=color, linewidth=2))
    bare(axes[0], "the image: 64 and 256 px")
    axes[1].imshow(pictures[1])
    bare(axes[1], "plain patch of 64 px:\nsharp, cut off")
    axes[2].imshow(pictures[2])
    bare(axes[2], "plain patch of 256 px:\ncontext, blurred")
    tensors = [torch.from_numpy(picture.transpose(2, 0, 1).copy()) for picture in pictures[3:]]
    patch = assembled(tensors, SCALES).numpy().transpose(1, 2, 0)
    axes[3].imshow(np.ascontiguousarray(patch))
    rim = (SCALES.patch_size - SCALES.middle) / 2 - 0.5
    axes[3].add_patch(Rectangle((rim, rim), SCALES.middle, SCALES.middle, fill=False, color=VIEWS[0], linewidth=2))
    bare(axes[3], "patch with a surround of 4:\nsharp middle, squeezed rim")
    for one in axes:
        for spine in one.spines.values():
            spine.set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
