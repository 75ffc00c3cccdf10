"""Draw how-it-works.png from the demonstration's image, with the library's own windows and patches.

Usage: python docs/assets/how_it_works.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, FancyBboxPatch, Rectangle

from foveate import ScaleSet, Size, Window, open_image
from foveate.demo import make_earth

COLORS = ("#e8564a", "#f2a93b", "#4aa3df")
SCALES = ScaleSet(64, (64, 128, 256))
SHOWN = Window(1220, 3080, 380, 520)
TARGET = Window(1330, 3175, 64, 64)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_image(make_earth(Path(folder)).image) as image:
        scene = image.read(SHOWN).transpose(1, 2, 0)
        patches = [image.read(SCALES.window(TARGET, s), Size.square(64)).transpose(1, 2, 0) for s in range(3)]
    figure = Figure(figsize=(11, 4.1), dpi=130)
    left = figure.add_axes((0.01, 0.05, 0.36, 0.83))
    left.imshow(scene)
    left.set_title("one place, three fields of view", fontsize=11)
    places = [figure.add_axes((0.43, 0.63 - 0.29 * s, 0.09, 0.25)) for s in range(3)]
    for s, (axes, patch) in enumerate(zip(places, patches, strict=True)):
        window = SCALES.window(TARGET, s)
        corner = (window.left - SHOWN.left, window.top - SHOWN.top)
        left.add_patch(Rectangle(corner, window.width, window.height, fill=False, color=COLORS[s], linewidth=2.5))
        axes.imshow(patch)
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(f"{window.width} px", color=COLORS[s], fontsize=10)
        for spine in axes.spines.values():
            spine.set(color=COLORS[s], linewidth=2.5)
        start = (corner[0] + window.width, corner[1] + window.height / 2)
        figure.add_artist(
            ConnectionPatch(
                start, (0, 0.5), "data", "axes fraction", axesA=left, axesB=axes, color=COLORS[s], linewidth=1
            )
        )
    places[0].set_title("patches of 64 x 64", fontsize=11)
    for axes in (left, *places):
        axes.set_xticks([])
        axes.set_yticks([])
    _flow(figure)
    figure.savefig(Path(__file__).with_name("how-it-works.png"))


def _flow(figure: Figure) -> None:
    """The boxes on the right, in figure coordinates."""
    boxes = {
        "policy": (0.575, 0.70, "policy network\nsees the overview,\nweighs the three views"),
        "network": (0.575, 0.22, "your network\nsees one patch,\nof constant size"),
        "aligned": (0.80, 0.22, "aligned prediction\nthe part over the target\nis cut out and resampled"),
        "loss": (0.80, 0.70, "loss at the target\ntrains both"),
    }
    for x, y, text in boxes.values():
        figure.add_artist(
            FancyBboxPatch(
                (x, y - 0.10), 0.165, 0.20, boxstyle="round,pad=0.012", facecolor="#f3f4f6", edgecolor="#444"
            )
        )
        figure.text(x + 0.0825, y, text, ha="center", va="center", fontsize=10)
    for start, end in [
        ((0.538, 0.22), (0.560, 0.22)),
        ((0.6575, 0.585), (0.6575, 0.34)),
        ((0.755, 0.22), (0.785, 0.22)),
        ((0.8825, 0.34), (0.8825, 0.585)),
        ((0.785, 0.70), (0.755, 0.70)),
    ]:
        figure.add_artist(
            ConnectionPatch(
                start, end, "figure fraction", "figure fraction", arrowstyle="-|>", color="#444", mutation_scale=14
            )
        )


if __name__ == "__main__":
    main()
