"""Labels: class ids on the grid of an image, from masks of any kind; never blended."""

from foveate.data.labels.raster import RasterLabels
from foveate.data.labels.reader import LabelReader, LabelSource, class_map, open_source
from foveate.data.labels.table import ColourTable, LabelTable

__all__ = ["ColourTable", "LabelReader", "LabelSource", "LabelTable", "RasterLabels", "class_map", "open_source"]
