"""What would be passed where over the training, as an animation."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from foveate.foveation.estimator import Estimator, shares_of
from foveate.reporting.panels import wrapped
from foveate.reporting.report.figures import style
from foveate.training.foveation_history import FoveationMap, read_maps

_FRAME_MS, _LAST_FRAME_MS = 350, 2000
_DPI = 110


class Animation(NamedTuple):
    """An animation, and its end as a still picture for those who want no motion.

    Attributes:
        gif: an animated GIF that repeats.
        strip: PNG of all frames below each other, which a page can show one after the other, and stop.
        last_frame: PNG.
        frames: how many there are.
        steps: the first and the last step shown.
        shape: width and height of a frame.
    """

    gif: bytes
    strip: bytes
    last_frame: bytes
    frames: int
    steps: tuple[int, int]
    shape: tuple[int, int]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.frames * _FRAME_MS / 1000


def animate(maps: Sequence[tuple[int, Path]], views: Sequence[int], estimator: Estimator) -> Animation | None:
    """Draw a frame for every kept step, of what would be passed after it; None where none is kept.

    Args:
        maps: steps and files, in order, see `foveate.training.foveation_history`.
        views: fields of view, level-0 pixels, ascending.
        estimator: what makes passes of the policy's probabilities.

    Raises:
        ImageReadError: when a file is damaged.
    """
    frames = [Image.fromarray(frame) for frame in _frames([path for _, path in maps], views, estimator)]
    if not frames:
        return None
    gif, png = io.BytesIO(), io.BytesIO()
    # One palette for all: colours that mean values must not change from frame to frame.
    palette = frames[-1].quantize(255)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_FRAME_MS]
    indexed[0].save(gif, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0)
    frames[-1].save(png, "PNG", optimize=True)
    steps = (maps[0][0], maps[-1][0])
    return Animation(gif.getvalue(), _strip(indexed), png.getvalue(), len(frames), steps, frames[-1].size)


def _strip(frames: Sequence[Image.Image]) -> bytes:
    """Frames of one palette below each other; one of another size, of another data set, is left white."""
    width, height = frames[-1].size
    strip = Image.new("P", (width, height * len(frames)))
    strip.putpalette(frames[-1].getpalette() or [])
    for place, frame in enumerate(frames):
        strip.paste(frame, (0, place * height))
    file = io.BytesIO()
    strip.save(file, "PNG", optimize=True)
    return file.getvalue()


def _frames(paths: Sequence[Path], views: Sequence[int], estimator: Estimator) -> Iterator[np.ndarray]:
    canvas = None
    for path in paths:
        maps = read_maps(path)
        if canvas is None or canvas.names != [one.name for one in maps]:
            canvas = _Canvas(maps, views, estimator)
        yield canvas.frame(maps)


class _Canvas:
    """One figure whose pictures are exchanged from frame to frame."""

    def __init__(self, maps: Sequence[FoveationMap], views: Sequence[int], estimator: Estimator) -> None:
        self.names, self._estimator = [one.name for one in maps], estimator
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
            bar.set_label("field of view, px")
            self._title = self._figure.suptitle("step 0", fontsize=12, x=0.02, ha="left")

    def frame(self, maps: Sequence[FoveationMap]) -> np.ndarray:
        """The pixels (h, w, 3) of a step."""
        with style():
            for picture, one in zip(self._pictures, maps, strict=True):
                picture.set_data(self._passed(one))
            self._title.set_text(f"step {maps[0].step}")
            self._agg.draw()  # type: ignore[no-untyped-call]
            return np.asarray(self._agg.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]

    def _draw(self, axes: Any, one: FoveationMap) -> Any:
        axes.set_axis_off()
        axes.set_title(wrapped(one.name, 30))
        low, high = float(self._views[0]), float(self._views[-1])
        return axes.imshow(
            self._passed(one), cmap="viridis", vmin=low, vmax=max(high, low + 1), interpolation="nearest"
        )

    def _passed(self, one: FoveationMap) -> np.ndarray:
        """The field of view (h, w) that inference would pass: what the policy said is not what is done."""
        scales, *shape = one.probabilities.shape
        logits = torch.from_numpy(one.probabilities).clamp(min=1e-30).log().reshape(scales, -1).T
        weights = shares_of(self._estimator.looks(logits)).numpy()
        return (weights @ self._views).reshape(shape)


def _figure_size(maps: Sequence[FoveationMap]) -> tuple[float, float]:
    """Inches: maps side by side, as high as the highest of them, within reason."""
    width = 6.2 if len(maps) > 1 else 4.2
    height, columns = max(one.probabilities.shape[1] / one.probabilities.shape[2] for one in maps), len(maps)
    return width, min(6.0, (width - 1.0) / columns * height + 0.7)
