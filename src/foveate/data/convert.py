"""Conversion of any image to a tiled TIFF pyramid; the writing is beside the readers, one of which needs it too."""

from foveate.data.readers.tiled_tiff import Compression, convert

__all__ = ["Compression", "convert"]
