"""The layer of the windows that passed through the network, from the map of passes that a prediction leaves."""

from __future__ import annotations

import json

from foveate.errors import ConfigError
from foveate.viewer.colors import stops
from foveate.viewer.facts import RasterFacts
from foveate.viewer.rendering import Passes
from foveate.viewer.scene import ClassEntry, Layer, Look

_MOST = 8  # bits of a code


def windows_layer(facts: RasterFacts, pixel: float) -> Layer:
    """The layer of a map of passes, see `foveate.looks.pass_map`.

    Args:
        facts: of the map.
        pixel: side of its pixels in base pixels.

    Raises:
        ConfigError: when the map does not say what its bands are, or has more than can be told apart.
    """
    pairs = _looks(facts)
    views = sorted({view for view, _ in pairs})
    legend = tuple(
        ClassEntry(1 << place, _name(view, side), _color(views.index(view), len(views)))
        for place, (view, side) in enumerate(pairs)
    )
    # Lengths are in pixels of the prediction, which may be coarser than the image.
    unit = pixel / float(facts.tags.get("cell", pixel))
    looks = tuple(Look(1 << place, view * unit, side * unit) for place, (view, side) in enumerate(pairs))
    return Layer("windows", "Windows", Passes(facts.path, len(pairs)), facts.size, pixel, classes=legend, looks=looks)


def _looks(facts: RasterFacts) -> list[tuple[int, int]]:
    """Field of view and used side of each band, pixels of the prediction."""
    try:
        pairs = [(int(view), int(side)) for view, side in json.loads(facts.tags["looks"])]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{facts.path} does not say which looks its bands are; predict again") from None
    if not 1 <= len(pairs) <= min(_MOST, facts.bands) or min(min(pair) for pair in pairs) < 1:
        raise ConfigError(f"{facts.path} names {len(pairs)} looks in {facts.bands} bands; 1 to {_MOST} can be shown")
    return pairs


def _name(view: int, side: int) -> str:
    return f"{view} px wide" + (f", central {side} used" if side < view else "")


def _color(rank: int, count: int) -> str:
    """Evenly spaced in the colours of the foveation map, whose narrowest is its darkest."""
    colors = stops("viridis")
    return colors[round(rank / max(1, count - 1) * (len(colors) - 1))]
