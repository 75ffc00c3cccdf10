"""Writers: rasters, labels and polygons as files, each complete or not there."""

from __future__ import annotations

from pydantic import Field

from foveate.config_base import Section
from foveate.types import Coordinates


class PolygonsConfig(Section):
    """How the class map becomes polygons.

    Attributes:
        leave_out: names of classes that get no polygons, usually the background.
        min_area: smallest polygon that is kept, pixels of the class map without its holes.
        simplify: farthest that a border may move, pixels of the class map; 0 keeps the pixels'
            borders.
        regular: draw sides at right angles where the border allows, as buildings have them; `simplify` is then the
            tolerance before.
        coordinates: "pixels" of the image as it is stored, whatever size of pixels it was read at; those of the class
            map's coordinate reference system ("crs"), or longitude and latitude; "auto" is "crs" where the class map
            has one, else "pixels".
    """

    leave_out: tuple[str, ...] = ()
    min_area: float = Field(default=0.0, ge=0)
    simplify: float = Field(default=0.0, ge=0)
    regular: bool = False
    coordinates: Coordinates = "auto"
