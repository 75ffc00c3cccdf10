"""Pictures of a run: images of its evaluation, a part as the network saw it, and its passes over the training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from foveate.data import ArrayReader, DataConfig, ImageReader, Sample, open_sample
from foveate.evaluation.maps import MapFiles
from foveate.foveation.estimator import Estimator, shares_of
from foveate.geometry import FloatArray, IntArray, LabelArray, Raster, Size, Window
from foveate.membership import Membership
from foveate.patches.scales import ScaleSet
from foveate.reporting.panels import Picture, image_picture, new_figure, screen_size, wrapped
from foveate.reporting.passes import PassesFile
from foveate.reporting.report.charts import sampled_maps, scale_of
from foveate.reporting.report.page import FigureFolder, encoded, style, value_picture
from foveate.runs.config import RunConfig
from foveate.training.history import FoveationMap, read_maps

LONGEST = 960
RIGHT, WRONG, NOT_COUNTED = (232, 234, 237), (213, 94, 0), (150, 156, 163)
PART_LONGEST = 1024
_SMALLEST, _LARGEST = 256, 2048  # sides of the part, level-0 pixels
_GRID = 256  # cells a side of the grid on which the part is looked for
_FRAME_MS, _LAST_FRAME_MS = 350, 2000
_DPI = 110


class ShownPicture(NamedTuple):
    """A picture of a page."""

    title: str  # what it is
    uri: str  # data URI
    pixelated: bool = False  # whether its pixels mean something


class Example(NamedTuple):
    """An image of the evaluation."""

    rank: str  # "best", "median" or "worst"; "only image" where there is one
    name: str  # stem of the file
    miou: float  # of the image, in [0, 1]
    pictures: list[ShownPicture]  # image, labels, prediction, errors, field of view of the passes


def ranked(images: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The best, the median and the worst of the images that have a score, each once."""
    known = sorted((one for one in images if one["miou"] is not None), key=lambda one: -one["miou"])
    if len(known) == 1:
        return [("only image", known[0])]
    middle = [("median", known[len(known) // 2])] if len(known) > 2 else []
    return [("best", known[0]), *middle, ("worst", known[-1])] if known else []


def example(
    rank: str, scores: dict[str, Any], sample: Sample, files: MapFiles, config: RunConfig, figures: FigureFolder
) -> Example:
    """The pictures of one image; it, its labels and its maps are read at a size for a screen."""
    data, views = config.data, config.foveation.fields_of_view
    # At every step-th pixel: at most 2048 a side.
    strips = list(sampled_maps(sample, files, data, views))
    prediction, labels = (np.concatenate(parts) for parts in list(zip(*strips, strict=True))[:2])
    with open_sample(sample, data) as image:
        photo = image_picture(image, longest=LONGEST, data=data)
        made = PassesFile.read(files.passes).made(Window.of(image.size), Size(*photo.shape[:2]))
    colors, membership = [c.rgb for c in data.classes], data.membership
    pictures = {
        "image": ("Image", photo),
        "labels": ("Labels", smaller(membership.picture(labels, colors))),
        "prediction": ("Prediction", smaller(membership.picture(prediction, colors))),
        "errors": ("Errors", smaller(errors_picture(prediction, labels, membership))),
        "passes": ("Field of view of the passes", value_picture(made, views[0], views[-1])),
    }
    shown = []
    for part, (title, pixels) in pictures.items():
        uri = figures.picture(f"{rank.replace(' ', '-')}-{part}", pixels, photo=part == "image")
        shown.append(ShownPicture(title, uri, part == "passes"))
    return Example(rank, sample.name, scores["miou"], shown)


def errors_picture(prediction: LabelArray, labels: LabelArray, membership: Membership) -> Picture:
    """Colours (h, w, 3) of what is right, wrong and not counted."""
    table = np.array([NOT_COUNTED, RIGHT, WRONG], np.uint8)
    counted = (labels != membership.ignore_index) & (prediction != membership.ignore_index)
    return table[np.where(counted, 1 + (prediction != labels), 0)]


def smaller(picture: Picture) -> Picture:
    """A picture at a size for a screen, each pixel the mean of what it covers, so that small errors are not lost."""
    size = screen_size(Size(*picture.shape[:2]), LONGEST)
    return np.asarray(Image.fromarray(picture).resize((size.width, size.height), Image.Resampling.BOX))


class Rendering(NamedTuple):
    """A part of an image, twice, and how it was passed; all pictures of one size."""

    window: Window  # level-0 pixels
    plain: Picture  # as it is
    foveated: Picture  # each cell at the resolution of its chosen field of view
    chosen: Picture  # the field of view that was passed at each cell, in colours; grey where none was
    variety: float  # entropy of the shares of the chosen fields of view in the part, in nats


def render(sample: Sample, files: MapFiles, data: DataConfig, scales: ScaleSet, cell: int) -> Rendering:
    """Draw the part of an image where the most different fields of view were passed."""
    passes, views = PassesFile.read(files.passes), scales.fields_of_view
    with open_sample(sample, data) as image:
        window, variety = _varied_part(image.size, passes, scales, cell)
        # Under the centres of the cells, the last of which may be cut off.
        middles = (np.minimum(np.arange(first, end, cell) + cell // 2, end - 1) for first, end in window.ranges)
        made = passes.chosen(*middles)
        composed = compose(image, window, scale_of(made, views), scales, cell)
        plain = image_picture(image, window, longest=PART_LONGEST, data=data)
        foveated = image_picture(ArrayReader(composed), longest=PART_LONGEST, data=data)
    rows, cols = _positions(window)
    chosen = value_picture(made[np.ix_(rows // cell, cols // cell)], views[0], views[-1])
    return Rendering(window, plain, foveated, chosen, variety)


def _positions(window: Window) -> tuple[IntArray, IntArray]:
    """Rows and columns of a window under the pixels of its picture."""
    return Window.of(window.size).centres(screen_size(window.size, PART_LONGEST))


def compose(image: ImageReader, window: Window, chosen: IntArray, scales: ScaleSet, cell: int) -> Raster:
    """The pixels (bands, h, w) of a window, each as coarse as in the patches of its cell's scale.

    Args:
        image: the image.
        window: level-0 pixels; its corner is a multiple of the cell.
        chosen: (rows, cols) scale of each cell of the window; of -1 the finest.
        scales: patch size and fields of view.
        cell: side of a cell, level-0 pixels.
    """
    rows, cols = _positions(window)
    chosen_at = np.maximum(chosen, 0)[np.ix_(rows // cell, cols // cell)]
    result = np.zeros((image.bands, *chosen_at.shape), image.dtype)
    for scale in np.unique(chosen_at).tolist():
        factor = 1 / max(1.0, scales.downsample(scale))
        size = window.size.scaled(factor, factor)
        # Each pixel of a coarse one is repeated to the places that it covers.
        down, across = rows * size.height // window.height, cols * size.width // window.width
        result = np.where(chosen_at == scale, image.read(window, size)[:, down[:, None], across], result)
    return result


def most_varied(chosen: IntArray, scales: int, side: Size) -> tuple[int, int, float]:
    """Where a window of `side` on a grid holds the most different scales.

    Args:
        chosen: (h, w) scale of each place; -1 counts as none.
        scales: how many there are.
        side: at most the grid's.

    Returns:
        Row and column of its corner, and the entropy of the shares there, in nats.
    """
    counts = np.stack([_box_sums(chosen == scale, side) for scale in range(scales)])
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=0)
    row, col = np.unravel_index(int(entropy.argmax()), entropy.shape)
    return int(row), int(col), float(entropy[row, col])


def _varied_part(size: Size, passes: PassesFile, scales: ScaleSet, cell: int) -> tuple[Window, float]:
    image = np.array([size.height, size.width])
    wanted = min(_LARGEST, max(_SMALLEST, 2 * scales.fields_of_view[-1]))
    sides = np.maximum(1, np.minimum(wanted, image) // cell) * cell
    cells = -(-image // cell)
    grid = screen_size(Size(*cells.tolist()), _GRID)
    factor = cells / (grid.height, grid.width)
    chosen = scale_of(passes.chosen(*Window.of(size).centres(grid)), scales.fields_of_view)
    on_grid = np.clip(sides / cell / factor, 1, (grid.height, grid.width)).astype(int)
    row, col, variety = most_varied(chosen, len(scales), Size(*on_grid.tolist()))
    last = np.maximum(0, image - sides) // cell * cell  # corners at which the part still lies inside
    corner = np.minimum(np.multiply((row, col), factor).astype(int) * cell, last)
    return Window(*corner.tolist(), *np.minimum(sides, image).tolist()), variety


def _box_sums(mask: np.ndarray, side: Size) -> IntArray:
    sums = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    h, w = side.height, side.width
    boxes: IntArray = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    return boxes


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
    if not maps:
        return None
    values = np.array(views, np.float32)
    frames = [_frame(read_maps(path), values, estimator) for _, path in maps]
    # One palette for all: colours that mean values must not change from frame to frame.
    palette = frames[-1].quantize(255)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    # Below each other; a frame of another size, of another data set, is left white.
    width, height = frames[-1].size
    strip = Image.new("P", (width, height * len(frames)))
    strip.putpalette(palette.getpalette() or [])
    for place, frame in enumerate(indexed):
        strip.paste(frame, (0, place * height))
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_FRAME_MS]
    return Animation(
        encoded(indexed[0], "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0),
        encoded(strip, "PNG", optimize=True),
        encoded(frames[-1], "PNG", optimize=True),
        len(frames),
        (maps[0][0], maps[-1][0]),
        (width, height),
    )


@style()
def _frame(maps: Sequence[FoveationMap], views: FloatArray, estimator: Estimator) -> Image.Image:
    """The maps of a step side by side, as high as the highest of them, within reason."""
    high, wide = max(one.probabilities.shape[1] / one.probabilities.shape[2] for one in maps), 6.2 if maps[1:] else 4.2
    size = wide, min(6.0, (wide - 1.0) / len(maps) * high + 0.7)  # inches
    figure = new_figure(*size, dpi=_DPI, facecolor="white")
    all_axes = figure.subplots(1, len(maps), squeeze=False)[0]
    low, most = float(views[0]), max(float(views[-1]), float(views[0]) + 1)
    for axes, one in zip(all_axes, maps, strict=True):
        axes.set_axis_off()
        axes.set_title(wrapped(one.name, 30))
        passed = _passed(one, views, estimator)
        drawn = axes.imshow(passed, cmap="viridis", vmin=low, vmax=most, interpolation="nearest")
    bar = figure.colorbar(drawn, ax=list(all_axes), ticks=views.tolist(), fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("field of view, px")
    figure.suptitle(f"step {maps[0].step}", fontsize=12, x=0.02, ha="left")
    canvas: Any = figure.canvas
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _passed(one: FoveationMap, views: FloatArray, estimator: Estimator) -> FloatArray:
    """The field of view (h, w) that inference would pass: what the policy said is not what is done."""
    scales, *shape = one.probabilities.shape
    logits = torch.from_numpy(one.probabilities).clamp(min=1e-30).log().reshape(scales, -1).T
    weights = shares_of(estimator.looks(logits)).numpy()
    return (weights @ views).reshape(shape)
