"""Writers: rasters, labels and polygons as files, each complete or not there."""

from typing import TYPE_CHECKING

from pydantic import Field

from foveate.config_base import Section
from foveate.package import door

if TYPE_CHECKING:
    from foveate.writers.outputs import OutputSpec, write_outputs
    from foveate.writers.polygons import check_polygons, write_polygons


class PolygonsConfig(Section):
    """How the class map becomes polygons.

    Attributes:
        leave_out: names of classes without polygons, usually the background.
        min_area: leave out polygons with a smaller area, in pixels of the class map, not counting holes.
        simplify: the most that a border may move, in pixels of the class map; 0 keeps the borders of the pixels.
        regular: draw right angles where the border allows, for buildings. `simplify` is applied first.
    """

    leave_out: tuple[str, ...] = ()
    min_area: float = Field(default=0.0, ge=0)
    simplify: float = Field(default=0.0, ge=0)
    regular: bool = False


__all__ = ["OutputSpec", "PolygonsConfig", "check_polygons", "write_outputs", "write_polygons"]

__getattr__, __dir__ = door(__name__, __file__)
