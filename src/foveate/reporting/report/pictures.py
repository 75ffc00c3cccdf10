"""Pictures of an evaluation: its best, median and worst image, and the foveated rendering of a part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from foveate.data.config import DataConfig
from foveate.data.images import open_sample
from foveate.data.manifest import Sample
from foveate.data.readers import ArrayReader
from foveate.data.readers.pyramid import ImageReader
from foveate.evaluation.maps import MapFiles
from foveate.geometry import CellGrid, Size, Window
from foveate.membership import Membership
from foveate.patches.scales import ScaleSet
from foveate.reporting.panels import Picture, channels_shown, image_picture, screen_size
from foveate.reporting.passes import PassesFile
from foveate.reporting.report.charts import sampled_maps, scale_of
from foveate.reporting.report.page import FigureFolder, value_picture
from foveate.runs.config import RunConfig
from foveate.types import IntArray, LabelArray, Raster

LONGEST = 960
RIGHT, WRONG, NOT_COUNTED = (232, 234, 237), (213, 94, 0), (150, 156, 163)
PART_LONGEST = 1024
_SMALLEST, _LARGEST = 256, 2048  # sides of the part, level-0 pixels
_GRID = 256  # cells a side of the grid on which the part is looked for


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture of a page."""

    title: str  # what it is
    alt: str  # the same for those who cannot see it
    uri: str  # data URI
    pixelated: bool = False  # whether its pixels mean something


@dataclass(frozen=True, slots=True)
class Example:
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
    name = rank.replace(" ", "-")
    # At every step-th pixel: at most 2048 a side.
    strips = list(sampled_maps(sample, files, config.data, config.foveation.fields_of_view))
    prediction, labels = (np.concatenate(parts) for parts in list(zip(*strips, strict=True))[:2])
    photo, passes = _photo_and_passes(sample, files, config)
    colors, membership = [c.rgb for c in config.data.classes], config.data.membership

    def shown(part: str, title: str, pixels: Picture, *, photo: bool = False, pixelated: bool = False) -> ShownPicture:
        uri = figures.picture(f"{name}-{part}", pixels, photo=photo)
        return ShownPicture(title, f"{title} of {sample.name}", uri, pixelated)

    pictures = [
        shown("image", "Image", photo, photo=True),
        shown("labels", "Labels", smaller(membership.picture(labels, colors))),
        shown("prediction", "Prediction", smaller(membership.picture(prediction, colors))),
        shown("errors", "Errors", smaller(errors_picture(prediction, labels, membership))),
        shown("passes", "Field of view of the passes", passes, pixelated=True),
    ]
    return Example(rank, sample.name, scores["miou"], pictures)


def errors_picture(prediction: LabelArray, labels: LabelArray, membership: Membership) -> Picture:
    """Colours (h, w, 3) of what is right, wrong and not counted."""
    table = np.array([NOT_COUNTED, RIGHT, WRONG], np.uint8)
    counted = (labels != membership.ignore_index) & (prediction != membership.ignore_index)
    return table[np.where(counted, 1 + (prediction != labels), 0)]


def smaller(picture: Picture) -> Picture:
    """A picture at a size for a screen, each pixel the mean of what it covers, so that small errors are not lost."""
    size = screen_size(Size(*picture.shape[:2]), LONGEST)
    if (size.height, size.width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size.width, size.height), Image.Resampling.BOX))


def _photo_and_passes(sample: Sample, files: MapFiles, config: RunConfig) -> tuple[Picture, Picture]:
    """The image, and of the same size the field of view of the passes in the colours of the legend."""
    data, views = config.data, config.foveation.fields_of_view
    with open_sample(sample, data) as image:
        photo = image_picture(image, longest=LONGEST, bands=channels_shown(image, data.bands, data.in_channels))
        made = PassesFile.read(files.passes).made(Window.of(image.size), Size(*photo.shape[:2]))
    return photo, value_picture(made, views[0], views[-1])


@dataclass(frozen=True, slots=True)
class Rendering:
    """A part of an image, twice."""

    window: Window  # level-0 pixels
    plain: Picture  # as it is
    foveated: Picture  # each cell at the resolution of its chosen field of view
    chosen: IntArray  # (rows, cols) scale that was passed at each cell; -1 where none was
    variety: float  # entropy of the shares of the chosen fields of view in the part, in nats


def render(sample: Sample, files: MapFiles, data: DataConfig, scales: ScaleSet, cell: int) -> Rendering:
    """Draw the part of an image where the most different fields of view were passed."""
    passes = PassesFile.read(files.passes)
    with open_sample(sample, data) as image:
        window, variety = _varied_part(image.size, passes, scales, cell)
        # Under the centres of the cells, the last of which may be cut off.
        middles = (np.minimum(np.arange(first, end, cell) + cell // 2, end - 1) for first, end in window.ranges)
        chosen = scale_of(passes.chosen(*middles), scales.fields_of_view)
        composed = compose(image, window, chosen, scales, cell)
        bands = channels_shown(image, data.bands, data.in_channels)
        plain = image_picture(image, window, longest=PART_LONGEST, bands=bands)
        foveated = image_picture(ArrayReader(composed), longest=PART_LONGEST, bands=bands)
    return Rendering(window, plain, foveated, chosen, variety)


def compose(image: ImageReader, window: Window, chosen: IntArray, scales: ScaleSet, cell: int) -> Raster:
    """The pixels (bands, h, w) of a window, each as coarse as in the patches of its cell's scale.

    Args:
        image: the image.
        window: level-0 pixels; its corner is a multiple of the cell.
        chosen: (rows, cols) scale of each cell of the window; of -1 the finest.
        scales: patch size and fields of view.
        cell: side of a cell, level-0 pixels.
    """
    out = screen_size(window.size, PART_LONGEST)
    rows, cols = Window.of(window.size).centres(out)
    chosen_at = np.maximum(chosen, 0)[np.ix_(rows // cell, cols // cell)]
    first, *others = np.unique(chosen_at).tolist()
    result = _layer(image, window, scales.downsample(first), rows, cols)
    for scale in others:
        layer = _layer(image, window, scales.downsample(scale), rows, cols)
        result = np.where(chosen_at == scale, layer, result)
    return result


def chosen_picture(chosen: IntArray, views: Sequence[int], cell: int = 1, size: Size | None = None) -> Picture:
    """Colours of the chosen fields of view (rows, cols) of cells, grey where there is none.

    Args:
        chosen: scale of each cell.
        views: fields of view, level-0 pixels, ascending.
        cell: side of a cell, level-0 pixels.
        size: level-0 pixels that the cells cover; the picture is as large as that of the image there. None gives one
            pixel for each cell.
    """
    if size is not None:
        out = screen_size(size, PART_LONGEST)
        rows, cols = Window.of(size).centres(out)
        chosen = chosen[np.ix_(rows // cell, cols // cell)]
    values = np.where(chosen >= 0, np.array(views, np.float32)[np.maximum(chosen, 0)], np.nan)
    return value_picture(values, views[0], views[-1])


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
    wanted = min(_LARGEST, max(_SMALLEST, 2 * scales.fields_of_view[-1]))
    height, width = (max(1, min(wanted, length) // cell) * cell for length in _pair(size))
    cells = CellGrid(size, cell)
    grid = screen_size(Size(cells.rows, cells.cols), _GRID)
    factor = cells.rows / grid.height, cells.cols / grid.width
    chosen = scale_of(passes.chosen(*Window.of(size).centres(grid)), scales.fields_of_view)
    sides = (
        max(1, min(n, int(side / cell / f))) for n, side, f in zip(_pair(grid), (height, width), factor, strict=True)
    )
    row, col, variety = most_varied(chosen, len(scales), Size(*sides))
    top, left = (int(place * f) * cell for place, f in zip((row, col), factor, strict=True))
    top, left = min(top, _last(size.height, height, cell)), min(left, _last(size.width, width, cell))
    return Window(top, left, min(height, size.height), min(width, size.width)), variety


def _last(length: int, side: int, cell: int) -> int:
    """The last corner on a cell at which a side still lies inside."""
    return max(0, (length - side) // cell * cell)


def _layer(image: ImageReader, window: Window, downsample: float, rows: IntArray, cols: IntArray) -> Raster:
    """The window read at a downsample, each of its pixels repeated to the positions `rows` and `cols` in the window."""
    size = Size(*(max(1, round(length / max(1.0, downsample))) for length in _pair(window.size)))
    pixels = image.read(window, size)
    picked = rows * size.height // window.height, cols * size.width // window.width
    return pixels[:, picked[0][:, None], picked[1][None]]


def _box_sums(mask: np.ndarray, side: Size) -> IntArray:
    sums = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    h, w = side.height, side.width
    boxes: IntArray = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    return boxes


def _pair(size: Size) -> Sequence[int]:
    return size.height, size.width
