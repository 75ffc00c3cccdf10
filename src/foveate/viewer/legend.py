"""Names and colours of classes, from the class map itself or from a run's configuration, and the colours of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from foveate.data.readers import open_image
from foveate.data.sections import ClassConfig
from foveate.geometry import Size, Window
from foveate.viewer.facts import RasterFacts
from foveate.viewer.rendering import NOT_COUNTED, RIGHT, WRONG, read_nearest
from foveate.viewer.scene import ClassEntry

# Okabe and Ito, for classes without a colour of their own.
CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
_WRONG_COLOR = "#e4004f"
_STOPS = 9
ERRORS = (ClassEntry(WRONG, "differs from the labels", _WRONG_COLOR), ClassEntry(RIGHT, "agrees", ""))
_SAMPLE = 512  # pixels a side that are looked at, where a raster does not say which ids it holds
_MOST_FOUND = 64


def category(number: int) -> str:
    """A colour for a class without one; after eight they repeat."""
    return CATEGORIES[number % len(CATEGORIES)]


@cache
def stops(name: str) -> tuple[str, ...]:
    """Colours of one of matplotlib's maps, evenly spaced: those of viridis, cividis and magma rise in lightness."""
    colours = colormaps[name]
    return tuple(to_hex(colours(number / (_STOPS - 1))) for number in range(_STOPS))


def run_legend(classes: Sequence[ClassConfig]) -> tuple[ClassEntry, ...]:
    """The legend that a run's configuration gives."""
    return tuple(ClassEntry(code, item.name, item.color) for code, item in enumerate(classes))


def class_legend(facts: RasterFacts) -> tuple[ClassEntry, ...]:
    """The legend of a class map: its colour table and its tags class_0, ...; else the ids that a sample of it holds."""
    ids = sorted({*facts.class_names} | {*facts.palette}) or _found(facts)
    return tuple(
        ClassEntry(
            code,
            facts.class_names.get(code, f"class {code}"),
            # The blacks at the end of a colour table are not known to be meant.
            "#{:02x}{:02x}{:02x}".format(*facts.palette.get(code, (0, 0, 0))) if facts.palette else category(place),
        )
        for place, code in enumerate(ids)
        if code < NOT_COUNTED
    )


def with_shares(
    legend: Sequence[ClassEntry], summary: dict[str, Any], total: int | None = None
) -> tuple[ClassEntry, ...]:
    """The legend with the share of each class of `total` pixels, or of all that are counted, where the summary says."""
    pixels = summary.get("class_pixels")
    counted = total or (sum(pixels.values()) if isinstance(pixels, dict) else 0)
    if not isinstance(pixels, dict) or not counted:
        return tuple(legend)
    return tuple(ClassEntry(item.code, item.name, item.color, pixels.get(item.name, 0) / counted) for item in legend)


def _found(facts: RasterFacts) -> list[int]:
    height, width = min(_SAMPLE, facts.size.height), min(_SAMPLE, facts.size.width)
    with open_image(facts.path) as reader:
        sample = read_nearest(reader, Window.of(facts.size), Size(height, width))[0]
    return [int(value) for value in np.unique(sample) if 0 <= value < NOT_COUNTED][:_MOST_FOUND]
