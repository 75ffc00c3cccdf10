"""Pictures of an image and what was made of it, side by side, at a size for a screen."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data import ClassConfig, DataConfig, ImageReader, select_channels
from foveate.files import written
from foveate.geometry import BoolArray, ByteArray, FloatArray, Size, Window
from foveate.membership import NOT_COUNTED_GREY
from foveate.package import matplotlib as mpl

Picture = ByteArray  # (h, w, 3)
LONGEST = 1200  # pixels of the longer side of a picture
_LINES_APART = 12
_CELL = 6.4  # inches: the longer side of a picture
_LEAST = 2.4, 1.0  # inches: the least width, for a title, and height, for a colour bar
_LETTER = 0.09  # inches that a letter of a title takes, about
_NAME = 48  # letters of a class's name on a line


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture with its title."""

    title: str  # shown above
    pixels: Picture | FloatArray  # (h, w, 3) uint8 colours, or (h, w) float values drawn with a colour bar
    ticks: tuple[float, ...] = ()  # values marked on the colour bar, which spans the first to the last
    unit: str = ""  # label of the colour bar
    colors: str = "viridis"  # name of matplotlib's colour map for values; NaN is grey


def screen_size(size: Size, longest: int) -> Size:
    """The size with its longer side at most `longest`."""
    factor = min(1.0, longest / max(size.height, size.width))
    return size.scaled(factor, factor)


def image_picture(
    image: ImageReader, window: Window | None = None, *, longest: int = LONGEST, data: DataConfig | None = None
) -> Picture:
    """A window of an image as colours: three of its bands (or one as grey), stretched unless they are bytes.

    What means nothing is grey.

    Args:
        image: the image.
        window: level-0 pixels; the whole image when None.
        longest: longer side of the picture in pixels.
        data: shows the first three bands that a network of this configuration sees; the first three of all when None.
    """
    window = window or Window.of(image.size)
    pixels, known = image.read_known(window, screen_size(window.size, longest))
    wanted = (select_channels(image, data.bands, data.in_channels) if data else list(range(len(pixels))))[:3]
    wanted = wanted if len(wanted) == 3 else [wanted[0]] * 3
    shown, there = pixels[wanted], True if known is None else known[wanted]
    colors: Picture = (
        shown if shown.dtype == np.uint8 else _stretched(np.where(there, shown.astype(np.float32), np.nan))
    )
    return np.moveaxis(np.where(there, colors, np.uint8(NOT_COUNTED_GREY)), 0, -1)


def _stretched(values: FloatArray) -> Picture:
    """The 2nd to 98th percentile of the values that are there, over all bands, as 0 to 255."""
    there = values[np.isfinite(values)]
    low, high = np.percentile(there, [2, 98]) if there.size else (0, 1)
    share = np.nan_to_num(np.clip((values - low) / max(high - low, 1e-9), 0, 1))
    return (share * 255).astype(np.uint8)


def hatched(picture: Picture, left_out: BoolArray) -> Picture:
    """A picture on which what was left out, a mask of the same place of any size, is pale under slanted lines."""
    height, width = picture.shape[:2]
    rows, cols = (np.arange(n) * m // n for n, m in zip((height, width), left_out.shape, strict=True))
    lines = (np.arange(height)[:, None] + np.arange(width)) % _LINES_APART == 0
    veil = np.where(lines[..., None], np.uint8(NOT_COUNTED_GREY), np.uint8(235))
    return np.where(left_out[np.ix_(rows, cols)][..., None], picture // 4 + veil // 4 * 3, picture)


def save_panels(
    path: Path,
    panels: Sequence[Panel],
    classes: Sequence[ClassConfig] = (),
    *,
    overwrite: bool = False,
) -> None:
    """Write panels as one PNG, with a legend of the classes."""
    with plain_text():
        figure = panels_figure(panels, classes)
        with written(path, overwrite=overwrite) as partial:
            figure.savefig(partial, dpi=130)


@contextmanager
def plain_text() -> Iterator[None]:
    """Within the block a text is drawn as it is: a class may have dollars in its name, or letters the font lacks."""
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float = 5.0, height: float = 2.9, **looks: Any) -> mpl.figure.Figure:
    """An empty figure, in inches, to be drawn into a file."""
    # Slow to import, and who draws nothing does not need them.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained", **looks)
    FigureCanvasAgg(figure)
    return figure


def panels_figure(panels: Sequence[Panel], classes: Sequence[ClassConfig] = ()) -> mpl.figure.Figure:
    """Panels, in reading order, as one figure with a legend of the classes, where there are any.

    No picture is stretched: its pixels are square, whatever the shape of the others.
    """
    from matplotlib.patches import Patch  # noqa: PLC0415

    with plain_text():
        height, width = panels[0].pixels.shape[:2]
        columns = _columns(len(panels), height / width)
        rows = -(-len(panels) // columns)
        cell = [max(least, _CELL * n / max(height, width)) for least, n in zip(_LEAST, (width, height), strict=True)]
        handles = [
            Patch(facecolor=c.color, edgecolor="black", linewidth=0.5, label=wrapped(c.name, _NAME)) for c in classes
        ]
        across = _legend_columns(classes, cell[0] * columns)
        below = 0.5 + 0.25 * (-(-len(handles) // across))
        figure = new_figure(cell[0] * columns, (cell[1] + 0.45) * rows + below)
        for i, panel in enumerate(panels):
            _draw(figure, figure.add_subplot(rows, columns, i + 1), panel, int(cell[0] / _LETTER))
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=across, frameon=False)
    return figure


def _columns(count: int, shape: float) -> int:
    """Panels in a row, by their height as a share of their width."""
    if shape < 1 / 3:
        return 1
    if shape > 3:
        return min(6, count)
    return 2 if count == 4 else min(3, count)


def _legend_columns(classes: Sequence[ClassConfig], width: float) -> int:
    """As many as fit next to each other with the longest name."""
    longest = max((min(len(c.name), _NAME) for c in classes), default=1)
    return max(1, min(6, len(classes), int(width / (_LETTER * longest + 0.6))))


def wrapped(text: str, letters: int) -> str:
    """The text in lines of at most so many letters, so that it does not run into its neighbours."""
    return "\n".join(textwrap.wrap(text, max(8, letters))) or text


def _draw(figure: mpl.figure.Figure, axes: Any, panel: Panel, letters: int) -> None:
    axes.set_title(wrapped(panel.title, letters), fontsize=11)
    axes.set_axis_off()
    if panel.pixels.ndim == 3:
        axes.imshow(panel.pixels, interpolation="nearest")
        return
    low, high = (panel.ticks[0], panel.ticks[-1]) if panel.ticks else (None, None)
    colors = mpl.colormaps[panel.colors].with_extremes(bad=(NOT_COUNTED_GREY / 255,) * 3)
    drawn = axes.imshow(panel.pixels, interpolation="nearest", cmap=colors, vmin=low, vmax=high)
    beside = axes.inset_axes((1.015, 0, 0.025, 1))  # as high as the picture
    bar = figure.colorbar(drawn, cax=beside, ticks=list(panel.ticks) or None)
    bar.set_label(panel.unit)
