"""One mask from those of several experts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, TypeAlias

import numpy as np

from foveate.data.preparation.scene import IGNORED
from foveate.errors import ConfigError
from foveate.types import LabelArray

Fusion: TypeAlias = Literal["majority", "staple"]
# It settles within ten or so where experts mostly agree; where they do not at all it would go on for minutes.
_STAPLE_ITERATIONS = 50


def check_available(fusion: Fusion) -> None:
    """Refuse a way of fusing whose package is missing, before hours of work.

    Raises:
        ConfigError: naming the extra to install.
    """
    if fusion == "staple" and find_spec("SimpleITK") is None:
        raise ConfigError("fusion 'staple' needs SimpleITK: pip install 'foveate[prepare]', or use fusion 'majority'")


def fuse(maps: Sequence[LabelArray], classes: int, fusion: Fusion) -> LabelArray:
    """One (H, W) mask from at least one; one alone is returned as it is.

    Args:
        maps: masks of equal size, class ids and `IGNORED`, which is no vote.
        classes: number of classes.
        fusion: "majority" or "staple".
    """
    if len(maps) == 1:
        return maps[0]
    return majority(maps, classes) if fusion == "majority" else staple(maps, classes)


def majority(maps: Sequence[LabelArray], classes: int) -> LabelArray:
    """The class most experts chose; a tie is ignored, as a rule that breaks it would be an opinion of its own.

    Args:
        maps: (H, W) each, class ids and `IGNORED`, which is no vote.
        classes: number of classes.
    """
    result = np.full_like(maps[0], IGNORED)
    most = np.zeros(result.shape, np.uint8)
    for label in range(classes):
        votes = np.zeros_like(most)
        for each in maps:
            votes += each == label
        result[(votes == most) & (votes > 0)] = IGNORED
        result[votes > most] = label
        np.maximum(most, votes, out=most)
    return result


def staple(maps: Sequence[LabelArray], classes: int) -> LabelArray:
    """The likeliest class given how reliable each expert is, both estimated together; a tie is ignored.

    Args:
        maps: (H, W) each, class ids and `IGNORED`, which counts as one more class.
        classes: number of classes.

    Source: Rohlfing, Russakoff, Maurer, "Performance-based classifier combination in atlas-based image segmentation
        using expectation-maximization parameter estimation", IEEE TMI 2004; the implementation is ITK's.
    """
    import SimpleITK as sitk  # noqa: N813, PLC0415 - optional, and its usual name

    # ITK keeps a weight for every value up to the largest: 255 would make 256 of them.
    images = [sitk.GetImageFromArray(np.where(each == IGNORED, classes, each).astype(np.uint8)) for each in maps]
    fusing = sitk.MultiLabelSTAPLEImageFilter()
    fusing.SetMaximumNumberOfIterations(_STAPLE_ITERATIONS)
    fusing.SetLabelForUndecidedPixels(classes)
    fused: LabelArray = sitk.GetArrayFromImage(fusing.Execute(images))
    return np.where(fused >= classes, IGNORED, fused).astype(np.uint8)
