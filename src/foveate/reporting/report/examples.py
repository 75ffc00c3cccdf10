"""The best, median and worst image of an evaluation, as pictures at a size for a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from foveate.data.images import open_sample
from foveate.data.manifest import Sample
from foveate.geometry import Size, Window
from foveate.inference.score import MapFiles
from foveate.membership import Membership
from foveate.reporting.panels import Picture, channels_shown, colored, image_picture, screen_size
from foveate.reporting.passes import PassesFile
from foveate.reporting.report.by_scale import sampled_maps
from foveate.reporting.report.figures import FigureFolder, value_picture
from foveate.runs.config import RunConfig
from foveate.types import LabelArray

LONGEST = 960
RIGHT, WRONG, NOT_COUNTED = (232, 234, 237), (213, 94, 0), (150, 156, 163)


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture of a page.

    Attributes:
        title: what it is.
        alt: the same for those who cannot see it.
        uri: data URI.
        pixelated: whether its pixels mean something.
    """

    title: str
    alt: str
    uri: str
    pixelated: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """An image of the evaluation.

    Attributes:
        rank: "best", "median" or "worst"; "only image" where there is one.
        name: stem of the file.
        miou: of the image, in [0, 1].
        pictures: image, labels, prediction, errors, field of view of the passes.
    """

    rank: str
    name: str
    miou: float
    pictures: list[ShownPicture]


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
    """The pictures of one image; it, its labels and its maps are read at a size for a screen.

    Raises:
        ImageReadError: when a file is missing or damaged.
    """
    name = rank.replace(" ", "-")
    prediction, labels = _class_maps(sample, files, config)
    photo, passes = _photo_and_passes(sample, files, config)
    classes, membership = config.data.classes, config.data.membership

    def shown(part: str, title: str, pixels: Picture, *, photo: bool = False, pixelated: bool = False) -> ShownPicture:
        uri = figures.picture(f"{name}-{part}", pixels, photo=photo)
        return ShownPicture(title, f"{title} of {sample.name}", uri, pixelated)

    pictures = [
        shown("image", "Image", photo, photo=True),
        shown("labels", "Labels", smaller(colored(membership.shown(labels, len(classes)), classes))),
        shown("prediction", "Prediction", smaller(colored(membership.shown(prediction, len(classes)), classes))),
        shown("errors", "Errors", smaller(errors_picture(prediction, labels, membership))),
        shown("passes", "Field of view of the passes", passes, pixelated=True),
    ]
    return Example(rank, sample.name, scores["miou"], pictures)


def errors_picture(prediction: LabelArray, labels: LabelArray, membership: Membership) -> Picture:
    """Colours (h, w, 3) of what is right, wrong and not counted."""
    table = np.array([NOT_COUNTED, RIGHT, WRONG], np.uint8)
    counted = (labels != membership.ignore_index) & (prediction != membership.ignore_index)
    picture: Picture = table[np.where(counted, 1 + (prediction != labels), 0)]
    return picture


def smaller(picture: Picture, longest: int = LONGEST) -> Picture:
    """A picture at a size for a screen, each pixel the mean of what it covers, so that small errors are not lost."""
    size = screen_size(Size(*picture.shape[:2]), longest)
    if (size.height, size.width) == picture.shape[:2]:
        return picture
    resized: Picture = np.asarray(Image.fromarray(picture).resize((size.width, size.height), Image.Resampling.BOX))
    return resized


def _class_maps(sample: Sample, files: MapFiles, config: RunConfig) -> tuple[LabelArray, LabelArray]:
    """Predicted and true class ids, at every step-th pixel: at most 2048 a side."""
    strips = list(sampled_maps(sample, files, config.data, config.foveation.fields_of_view))
    return np.concatenate([one.prediction for one in strips]), np.concatenate([one.labels for one in strips])


def _photo_and_passes(sample: Sample, files: MapFiles, config: RunConfig) -> tuple[Picture, Picture]:
    """The image, and of the same size the field of view of the passes in the colours of the legend."""
    data, views = config.data, config.foveation.fields_of_view
    with open_sample(sample, data) as image:
        photo = image_picture(image, longest=LONGEST, bands=channels_shown(image, data.bands, data.in_channels))
        made = PassesFile.read(files.passes).made(Window.of(image.size), Size(*photo.shape[:2]))
    return photo, value_picture(made, views[0], views[-1])
