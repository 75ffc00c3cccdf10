"""Whether polygons can be made as asked for, before any work."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

from foveate.data.readers.base import Georeference
from foveate.errors import ConfigError
from foveate.inference.config import PolygonsConfig
from foveate.inference.polygons.place import place_of

_SHOWN = 20


def check_polygons(config: PolygonsConfig, names: Collection[str], georeference: Georeference | None) -> None:
    """Raise unless the polygons of a class map can be made.

    Args:
        config: which polygons, and how.
        names: of the classes.
        georeference: of the class map.

    Raises:
        ConfigError: when a class to leave out is unknown, coordinates are not known, or an extra is not installed.
    """
    unknown = [name for name in config.leave_out if name not in names]
    if unknown:
        known = ", ".join(list(names)[:_SHOWN])
        raise ConfigError(f"there is no class {unknown[0]!r} to leave out; the class map has {known}")
    place_of(georeference, config.coordinates)
    if config.simplify and find_spec("shapely") is None:
        raise ConfigError("to simplify polygons: pip install 'foveate[polygons]'; or leave simplify at 0")
