"""A training as pictures: its curves, and what would be passed where over its course, as an animation."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from foveate.foveation.estimator import Estimator, shares_of
from foveate.reporting.panels import new_figure, wrapped
from foveate.reporting.report import page
from foveate.reporting.report.state import History
from foveate.training.history import FoveationMap, read_maps

_DASHES = ("-", "--", "-.", ":", "-")
_FRAME_MS, _LAST_FRAME_MS = 350, 2000
_DPI = 110


def training_charts(
    history: History, views: Sequence[int], classes: Sequence[str], figures: page.FigureFolder
) -> list[page.Chart]:
    """The charts there are values for.

    Args:
        history: rows of metrics.csv.
        views: fields of view that a policy chooses from, level-0 pixels, ascending; none where there is no policy.
        classes: names, in the order of their ids.
        figures: where they are kept.
    """
    drawn = (
        _lines(history, figures, "loss", "Loss", {"train/loss": "training", "val/loss": "validation"}),
        _miou(history, classes, figures),
        _shares(history, views, figures) if views else None,
        _entropy(history, len(views), figures) if views else None,
        _learning_rates(history, figures),
    )
    return [chart for chart in drawn if chart is not None]


def _series(history: History, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one column, where it has values."""
    rows = [(row["step"], row[name]) for row in history if name in row]
    return [step for step, _ in rows], [value for _, value in rows]


def _lines(
    history: History,
    figures: page.FigureFolder,
    name: str,
    title: str,
    labels: dict[str, str],
    adjust: Callable[[Any], None] = lambda _axes: None,
    unit: float = 1.0,
) -> page.Chart | None:
    """One line for every column of `labels` that has values; None where none has."""
    found = {column: _series(history, column) for column in labels}
    found = {column: points for column, points in found.items() if points[0]}
    if not found:
        return None
    with page.style():
        figure = new_figure()
        axes = figure.subplots()
        for color, dashes, (column, (steps, values)) in zip(page.SERIES, _DASHES, found.items(), strict=False):
            marker = "o" if len(steps) < 30 and column.startswith("val/") else ""
            shown = [unit * value for value in values]
            axes.plot(steps, shown, dashes, color=color, label=page.short(labels[column]), marker=marker, markersize=4)
        adjust(axes)
        _finish(figure, axes, [page.short(labels[column]) for column in found] if len(found) > 1 else [])
    return figures.chart(name, title, _sentence(found, labels, unit), figure)


def _miou(history: History, classes: Sequence[str], figures: page.FigureFolder) -> page.Chart | None:
    """The mean, and the classes where there are few enough to be told apart."""
    each = {f"val/iou/{name}": name for name in classes} if len(classes) < len(page.SERIES) else {}
    title = "IoU on validation locations, %" if each else "mIoU on validation locations, %"
    return _lines(
        history, figures, "miou", title, {"val/miou": "mIoU"} | each, lambda axes: axes.set_ylim(0, 102), 100.0
    )


def _entropy(history: History, views: int, figures: page.FigureFolder) -> page.Chart | None:
    def from_zero(axes: Any) -> None:
        most = math.log(max(2, views))
        axes.set_ylim(0, 1.2 * most)
        axes.axhline(most, color=page.MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "all alike", (1, most), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
            fontsize=9, color=page.MUTED, ha="right",
        )  # fmt: skip

    labels = {"train/policy_entropy": "training", "val/policy_entropy": "validation"}
    return _lines(history, figures, "entropy", "Entropy of the policy, nats", labels, from_zero)


def _learning_rates(history: History, figures: page.FigureFolder) -> page.Chart | None:
    # In the order in which they first have a value.
    names = {name: name.removeprefix("lr/") for row in history for name in row if name.startswith("lr/")}

    def from_zero(axes: Any) -> None:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))

    return _lines(history, figures, "learning-rates", "Learning rates", names, from_zero)


def _shares(history: History, views: Sequence[int], figures: page.FigureFolder) -> page.Chart | None:
    """How much each field of view was used, stacked to one."""
    stage = "val" if len(_series(history, f"val/share/{views[0]}")[0]) > 2 else "train"
    found = [_series(history, f"{stage}/share/{view}") for view in views]
    if not all(steps for steps, _ in found) or len({len(steps) for steps, _ in found}) > 1:
        return None
    with page.style():
        figure = new_figure()
        axes = figure.subplots()
        shares = [[100 * value for value in values] for _, values in found]
        axes.stackplot(
            found[0][0],
            shares,
            colors=page.view_colors(views),
            labels=[f"{v} px" for v in views],
            alpha=0.9,
            linewidth=0,
        )
        axes.set_ylim(0, 100)
        axes.margins(x=0)
        _finish(figure, axes, [f"{v} px" for v in views])
    last = ", ".join(f"{view} px {values[-1]:.0f} %" for view, values in zip(views, shares, strict=True))
    where = "validation" if stage == "val" else "training"
    return figures.chart(
        "shares", "Share of each field of view, %", f"Of {where} locations, at the last step: {last}.", figure
    )


def _finish(figure: Figure, axes: Any, labels: Sequence[str]) -> None:
    axes.set_xlabel("step")
    axes.grid(axis="x", visible=False)
    if labels:
        page.legend_above(figure, labels)


def _sentence(found: dict[str, tuple[list[float], list[float]]], labels: dict[str, str], unit: float) -> str:
    """What the lines do, for those who cannot see them."""
    return " ".join(
        f"{labels[name]}: from {unit * values[0]:.3g} at step {steps[0]:.0f} to {unit * values[-1]:.3g} at step "
        f"{steps[-1]:.0f}."
        for name, (steps, values) in found.items()
    )


class Animation(NamedTuple):
    """An animation, and its end as a still picture for those who want no motion."""

    gif: bytes  # an animated GIF that repeats
    strip: bytes  # PNG of all frames below each other, which a page can show one after the other, and stop
    last_frame: bytes  # PNG
    frames: int  # how many there are
    steps: tuple[int, int]  # the first and the last step shown
    shape: tuple[int, int]  # width and height of a frame

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.frames * _FRAME_MS / 1000


def animate(maps: Sequence[tuple[int, Path]], views: Sequence[int], estimator: Estimator) -> Animation | None:
    """Draw a frame for every kept step, of what would be passed after it; None where none is kept.

    Args:
        maps: steps and files, in order, see `foveate.training.history`.
        views: fields of view, level-0 pixels, ascending.
        estimator: what makes passes of the policy's probabilities.
    """
    frames = [Image.fromarray(frame) for frame in _frames([path for _, path in maps], views, estimator)]
    if not frames:
        return None
    # One palette for all: colours that mean values must not change from frame to frame.
    palette = frames[-1].quantize(255)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_FRAME_MS]
    gif = page.encoded(indexed[0], "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0)
    png = page.encoded(frames[-1], "PNG", optimize=True)
    steps = (maps[0][0], maps[-1][0])
    return Animation(gif, _strip(indexed), png, len(frames), steps, frames[-1].size)


def _strip(frames: Sequence[Image.Image]) -> bytes:
    """Frames of one palette below each other; one of another size, of another data set, is left white."""
    width, height = frames[-1].size
    strip = Image.new("P", (width, height * len(frames)))
    strip.putpalette(frames[-1].getpalette() or [])
    for place, frame in enumerate(frames):
        strip.paste(frame, (0, place * height))
    return page.encoded(strip, "PNG", optimize=True)


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
        with page.style():
            self._figure = new_figure(*_figure_size(maps), dpi=_DPI, facecolor="white")
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
        with page.style():
            for picture, one in zip(self._pictures, maps, strict=True):
                picture.set_data(self._passed(one))
            self._title.set_text(f"step {maps[0].step}")
            canvas: Any = self._figure.canvas
            canvas.draw()
            return np.asarray(canvas.buffer_rgba())[..., :3].copy()

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
