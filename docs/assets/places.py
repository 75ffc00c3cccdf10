"""The piece of the Earth that the pictures of the concepts share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foveate import Size, Window, open_image
from foveate.data import class_map
from foveate.demo import make_earth
from foveate.membership import Exclusive

COLORS = np.array([(0x1F, 0x4E, 0x79), (0xC8, 0xB7, 0x7A), (0x3F, 0xD0, 0xE0)], np.uint8)  # sea, land, lake
VIEWS = ("#e8564a", "#f2a93b", "#4aa3df")  # narrow, middle, wide


class Piece(NamedTuple):
    """A window of the image and of its labels, at some size."""

    picture: np.ndarray  # (h, w, 3)
    labels: np.ndarray  # (h, w)


def pieces(windows: list[tuple[Window, Size]]) -> list[Piece]:
    """Windows of the Earth, each resampled to a size."""
    with tempfile.TemporaryDirectory() as folder:
        earth = make_earth(Path(folder))
        with open_image(earth.image) as image, class_map(earth.labels, 3, Exclusive()) as labels:
            return [Piece(image.read(w, size).transpose(1, 2, 0), labels.read(w, size)) for w, size in windows]


def bare(axes, title="", **options) -> None:
    """A panel without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10, **options)


def frame(axes, color: str) -> None:
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2.5)
