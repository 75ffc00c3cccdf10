"""Data: image readers, labels, which places to look at, and the batches made of them.

Start at `open_image` to read windows of a file, at `DataConfig` to describe a data set, and at `FoveateDataModule`
(which alone needs Lightning) to train on one.
"""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.data.area import Area, Roi
    from foveate.data.channels import Normalisation, select_channels
    from foveate.data.config import DataConfig
    from foveate.data.datamodule import FoveateDataModule
    from foveate.data.images import ReaderCache, open_labels, open_sample, open_working, sample_area
    from foveate.data.labels import LabelReader, class_map
    from foveate.data.labels.shapes import VECTORS
    from foveate.data.locations import Location, LocationBatch, LocationSpec, Nesting
    from foveate.data.manifest import Sample, load_samples
    from foveate.data.readers import ArrayReader, Georeference, ImageReader, Resolution, open_image
    from foveate.data.readers.base import Address, plane_of
    from foveate.data.readers.gdal import open_dataset
    from foveate.data.sections import SPLITS, ClassConfig, Split, SplitConfig, TrainedOn, VectorsConfig

__all__ = [
    "SPLITS",
    "VECTORS",
    "Address",
    "Area",
    "ArrayReader",
    "ClassConfig",
    "DataConfig",
    "FoveateDataModule",
    "Georeference",
    "ImageReader",
    "LabelReader",
    "Location",
    "LocationBatch",
    "LocationSpec",
    "Nesting",
    "Normalisation",
    "ReaderCache",
    "Resolution",
    "Roi",
    "Sample",
    "Split",
    "SplitConfig",
    "TrainedOn",
    "VectorsConfig",
    "class_map",
    "load_samples",
    "open_dataset",
    "open_image",
    "open_labels",
    "open_sample",
    "open_working",
    "plane_of",
    "sample_area",
    "select_channels",
]

__getattr__, __dir__ = door(__name__, __file__)
