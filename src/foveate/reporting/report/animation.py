"""The foveation map over the training, as an animation."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from foveate.reporting.report.figures import style
from foveate.training.foveation_history import FoveationMap, read_maps

_FRAME_MS, _LAST_FRAME_MS = 350, 2000
_DPI = 110


class Animation(NamedTuple):
    """An animation, and its end as a still picture for those who want no motion.

    Attributes:
        gif: an animated GIF that repeats.
        last_frame: PNG.
        frames: how many there are.
        steps: the first and the last step shown.
    """

    gif: bytes
    last_frame: bytes
    frames: int
    steps: tuple[int, int]


def animate(maps: Sequence[tuple[int, Path]], views: Sequence[int]) -> Animation | None:
    """Draw a frame for every kept step; None where none is kept.

    Args:
        maps: steps and files, in order, see `foveate.training.foveation_history`.
        views: fields of view, level-0 pixels, ascending.

    Raises:
        ImageReadError: when a file is damaged.
    """
    frames = [Image.fromarray(frame) for frame in _frames([path for _, path in maps], views)]
    if not frames:
        return None
    gif, png = io.BytesIO(), io.BytesIO()
    # One palette for all: colours that mean values must not change from frame to frame.
    palette = frames[-1].quantize(255)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_FRAME_MS]
    indexed[0].save(gif, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0)
    frames[-1].save(png, "PNG", optimize=True)
    return Animation(gif.getvalue(), png.getvalue(), len(frames), (maps[0][0], maps[-1][0]))


def _frames(paths: Sequence[Path], views: Sequence[int]) -> Iterator[np.ndarray]:
    canvas = None
    for path in paths:
        maps = read_maps(path)
        if canvas is None or canvas.names != [one.name for one in maps]:
            canvas = _Canvas(maps, views)
        yield canvas.frame(maps)


class _Canvas:
    """One figure whose pictures are exchanged from frame to frame."""

    def __init__(self, maps: Sequence[FoveationMap], views: Sequence[int]) -> None:
        self.names = [one.name for one in maps]
        self._views = np.array(views, np.float32)
        with style():
            self._figure = Figure(figsize=_figure_size(maps), dpi=_DPI, layout="constrained", facecolor="white")
            self._agg = FigureCanvasAgg(self._figure)
            all_axes = self._figure.subplots(1, len(maps), squeeze=False)[0]
            self._pictures = [self._draw(axes, one) for axes, one in zip(all_axes, maps, strict=True)]
            bar = self._figure.colorbar(
                self._pictures[-1], ax=list(all_axes), ticks=list(views), fraction=0.04, pad=0.02
            )
            bar.outline.set_visible(False)
            bar.set_label("expected field of view, px")
            self._title = self._figure.suptitle("step 0", fontsize=12, x=0.02, ha="left")

    def frame(self, maps: Sequence[FoveationMap]) -> np.ndarray:
        """The pixels (h, w, 3) of a step."""
        with style():
            for picture, one in zip(self._pictures, maps, strict=True):
                picture.set_data(self._expected(one))
            self._title.set_text(f"step {maps[0].step}")
            self._agg.draw()  # type: ignore[no-untyped-call]
            return np.asarray(self._agg.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]

    def _draw(self, axes: Any, one: FoveationMap) -> Any:
        axes.set_axis_off()
        axes.set_title(one.name)
        low, high = float(self._views[0]), float(self._views[-1])
        return axes.imshow(
            self._expected(one), cmap="viridis", vmin=low, vmax=max(high, low + 1), interpolation="nearest"
        )

    def _expected(self, one: FoveationMap) -> np.ndarray:
        return np.tensordot(self._views, one.probabilities, axes=1)


def _figure_size(maps: Sequence[FoveationMap]) -> tuple[float, float]:
    """Inches: maps side by side, as high as the highest of them, within reason."""
    width = 6.2 if len(maps) > 1 else 4.2
    height, columns = max(one.probabilities.shape[1] / one.probabilities.shape[2] for one in maps), len(maps)
    return width, min(6.0, (width - 1.0) / columns * height + 0.7)
