"""Readers: windows of images of any size, from any supported file, through one contract."""

from foveate.data.readers.array import ArrayReader
from foveate.data.readers.base import ImageReader
from foveate.data.readers.registry import open_image
from foveate.geometry import Georeference, Resolution

__all__ = ["ArrayReader", "Georeference", "ImageReader", "Resolution", "open_image"]
