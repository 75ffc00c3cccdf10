"""Data: image readers, labels, which places to look at, and the batches made of them.

Start at `open_image` to read windows of a file, at `DataConfig` to describe a data set, and at
`foveate.data.datamodule.FoveateDataModule` (which alone needs Lightning) to train on one.
"""

from foveate.data.config import DataConfig
from foveate.data.convert import convert
from foveate.data.labels import LabelReader
from foveate.data.locations import Location, LocationBatch, LocationSpec
from foveate.data.manifest import Sample, load_samples
from foveate.data.readers import ArrayReader, Georeference, ImageReader, open_image

__all__ = [
    "ArrayReader",
    "DataConfig",
    "Georeference",
    "ImageReader",
    "LabelReader",
    "Location",
    "LocationBatch",
    "LocationSpec",
    "Sample",
    "convert",
    "load_samples",
    "open_image",
]
