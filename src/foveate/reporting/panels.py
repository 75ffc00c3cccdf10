"""Pictures of an image and what was made of it, side by side, at a size for a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from foveate.data.channels import select_channels
from foveate.data.config import ClassConfig
from foveate.data.labels import LabelReader
from foveate.data.readers.base import ImageReader
from foveate.files import written
from foveate.geometry import Size, Window
from foveate.types import BoolArray, FloatArray, LabelArray

Picture = NDArray[np.uint8]  # (h, w, 3)
IGNORED_GREY = 128
_LINES_APART = 12


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture with its title.

    Attributes:
        title: shown above.
        pixels: (h, w, 3) uint8 colours, or (h, w) float values drawn with a colour bar.
        ticks: values marked on the colour bar, which spans the first to the last.
        unit: label of the colour bar.
        colors: name of matplotlib's colour map for values; NaN is grey.
    """

    title: str
    pixels: Picture | FloatArray
    ticks: tuple[float, ...] = ()
    unit: str = ""
    colors: str = "viridis"


def screen_size(size: Size, longest: int) -> Size:
    """The size with its longer side at most `longest`."""
    factor = min(1.0, longest / max(size.height, size.width))
    return Size(max(1, round(size.height * factor)), max(1, round(size.width * factor)))


def image_picture(
    image: ImageReader, window: Window | None = None, *, longest: int = 1200, bands: list[int] | None = None
) -> Picture:
    """A window of an image as colours: its first three bands (or one as grey), stretched unless they are bytes.

    What means nothing is grey.

    Args:
        image: the image.
        window: level-0 pixels; the whole image when None.
        longest: longer side of the picture in pixels.
        bands: 1-based numbers of the bands to show; the first three when None.
    """
    window = window or Window.of(image.size)
    pixels, known = image.read_known(window, screen_size(window.size, longest))
    wanted = [b - 1 for b in (bands or range(1, len(pixels) + 1))][:3]
    wanted = wanted if len(wanted) == 3 else [wanted[0]] * 3
    shown, there = pixels[wanted], True if known is None else known[wanted]
    colors: Picture = (
        shown if shown.dtype == np.uint8 else _stretched(np.where(there, shown.astype(np.float32), np.nan))
    )
    return np.moveaxis(np.where(there, colors, np.uint8(IGNORED_GREY)), 0, -1)


def _stretched(values: NDArray[np.float32]) -> Picture:
    """The 2nd to 98th percentile of the values that are there, over all bands, as 0 to 255."""
    there = values[np.isfinite(values)]
    low, high = np.percentile(there, [2, 98]) if there.size else (0, 1)
    share = np.nan_to_num(np.clip((values - low) / max(high - low, 1e-9), 0, 1))
    stretched: Picture = (share * 255).astype(np.uint8)
    return stretched


def class_picture(
    labels: LabelReader, classes: Sequence[ClassConfig], window: Window | None = None, *, longest: int = 1200
) -> Picture:
    """A window of a class map in its classes' colours; what is not counted is grey."""
    window = window or Window.of(labels.size)
    return colored(labels.read(window, screen_size(window.size, longest)), classes)


def colored(ids: LabelArray, classes: Sequence[ClassConfig]) -> Picture:
    """Class ids (h, w) as colours (h, w, 3)."""
    table = np.full((256, 3), IGNORED_GREY, dtype=np.uint8)
    table[: len(classes)] = [c.rgb for c in classes]
    return table[ids]


def hatched(picture: Picture, left_out: BoolArray) -> Picture:
    """A picture on which what was left out, a mask of the same place of any size, is pale under slanted lines."""
    height, width = picture.shape[:2]
    rows, cols = (np.arange(n) * m // n for n, m in zip((height, width), left_out.shape, strict=True))
    lines = (np.arange(height)[:, None] + np.arange(width)) % _LINES_APART == 0
    veil = np.where(lines[..., None], np.uint8(IGNORED_GREY), np.uint8(235))
    return np.where(left_out[np.ix_(rows, cols)][..., None], picture // 4 + veil // 4 * 3, picture)


def foveation_panel(fov: ImageReader, fields_of_view: Sequence[int], window: Window | None = None) -> Panel:
    """A window, in cells, of the foveation map as a panel; its colours span the fields of view."""
    values = fov.read(window or Window.of(fov.size))[0]
    return Panel("expected field of view", values.astype(np.float32), tuple(fields_of_view), "pixels")


def save_panels(
    path: Path,
    panels: Sequence[Panel],
    classes: Sequence[ClassConfig] = (),
    *,
    overwrite: bool = False,
) -> None:
    """Write panels as one PNG, with a legend of the classes.

    Args:
        path: of the picture.
        panels: in reading order.
        classes: for the legend; none, no legend.
        overwrite: replace an existing file.
    """
    figure = panels_figure(panels, classes)
    with written(path, overwrite=overwrite) as partial:
        figure.savefig(partial, dpi=130)


def panels_figure(panels: Sequence[Panel], classes: Sequence[ClassConfig] = ()) -> Figure:
    """Panels, in reading order, as one figure with a legend of the classes, where there are any."""
    height, width = panels[0].pixels.shape[:2]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    cell = 6.4
    figure = Figure(figsize=(cell * columns, (cell * height / width + 0.45) * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for i, panel in enumerate(panels):
        _draw(figure, figure.add_subplot(rows, columns, i + 1), panel)
    if classes:
        handles = [Patch(facecolor=c.color, edgecolor="black", linewidth=0.5, label=c.name) for c in classes]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(classes)), frameon=False)
    return figure


def _draw(figure: Figure, axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=11)
    axes.set_axis_off()
    if panel.pixels.ndim == 3:
        axes.imshow(panel.pixels, interpolation="nearest", aspect="auto")
        return
    low, high = (panel.ticks[0], panel.ticks[-1]) if panel.ticks else (None, None)
    colors = colormaps[panel.colors].with_extremes(bad=(IGNORED_GREY / 255,) * 3)
    drawn = axes.imshow(panel.pixels, interpolation="nearest", aspect="auto", cmap=colors, vmin=low, vmax=high)
    bar = figure.colorbar(drawn, ax=axes, ticks=list(panel.ticks) or None, fraction=0.04, pad=0.01, aspect=30)
    bar.set_label(panel.unit)


def channels_shown(image: ImageReader, bands: list[int] | None, in_channels: int) -> list[int]:
    """1-based bands of an image that its network sees, for `image_picture`."""
    return [c + 1 for c in select_channels(image, bands, in_channels)]
