"""TIFF, written: by blocks, from tiles compressed before, or from a reader; every file is a cloud-optimised one."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.tiff.cog import open_tiled
    from foveate.tiff.raster import NODATA, RasterSpec, TiffSource, open_raster, write_pyramid

__all__ = ["NODATA", "RasterSpec", "TiffSource", "open_raster", "open_tiled", "write_pyramid"]

__getattr__, __dir__ = door(__name__, __file__)
