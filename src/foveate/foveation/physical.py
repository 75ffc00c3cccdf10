"""Fields of view given as lengths, such as "128 um", in pixels of the working resolution."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from foveate.errors import ConfigError
from foveate.units import length, metres

_TOLD_FROM = 0.01


def is_physical(view: Any) -> bool:
    """Whether a field of view is a length rather than a number of pixels."""
    return isinstance(view, str) and not view.strip().lstrip("+-").isdigit()


def pixel_size_of(views: Sequence[Any], patch_size: int) -> str:
    """The pixel size with which the narrowest field of view is as many pixels as the patch: none is magnified.

    Args:
        views: fields of view, all of them lengths.
        patch_size: side of a patch.

    Raises:
        ConfigError: when one is no length.
    """
    return length(min(map(_metres, views)) / patch_size)


def in_pixels(views: Sequence[Any], pixel_size: str) -> tuple[int, ...]:
    """Fields of view as whole numbers of pixels; warns of those that rounding changes by more than 1%.

    Args:
        views: all of them lengths.
        pixel_size: side of a pixel, a length.

    Raises:
        ConfigError: when one is no length.
    """
    pixel = metres(pixel_size)
    exact = [_metres(view) / pixel for view in views]
    rounded = tuple(max(1, round(side)) for side in exact)
    for view, side, whole in zip(views, exact, rounded, strict=True):
        if abs(whole - side) > _TOLD_FROM * side:
            warnings.warn(
                f"the field of view {view} is {side:.2f} pixels of {pixel_size} and is rounded to {whole}, which is "
                f"{length(whole * pixel)}; choose a multiple of data.pixel_size",
                stacklevel=2,
            )
    return rounded


def _metres(view: Any) -> float:
    if not is_physical(view):
        raise ConfigError(f"fields_of_view are all pixels or all lengths such as '128 um', got {view!r} among lengths")
    return metres(view)
