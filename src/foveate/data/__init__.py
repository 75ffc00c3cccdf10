"""Data: image readers, labels, which places to look at, and the batches made of them.

Start at `open_image` to read windows of a file, at `DataConfig` to describe a data set, and at
`foveate.data.datamodule.FoveateDataModule` (which alone needs Lightning) to train on one.
"""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.data.channels import Normalisation
    from foveate.data.config import DataConfig
    from foveate.data.labels import LabelReader, class_map
    from foveate.data.locations import Location, LocationBatch, LocationSpec
    from foveate.data.manifest import Sample, load_samples
    from foveate.data.readers import ArrayReader, Georeference, ImageReader, Resolution, open_image
    from foveate.data.sections import ClassConfig

__all__ = [
    "ArrayReader",
    "ClassConfig",
    "DataConfig",
    "Georeference",
    "ImageReader",
    "LabelReader",
    "Location",
    "LocationBatch",
    "LocationSpec",
    "Normalisation",
    "Resolution",
    "Sample",
    "class_map",
    "load_samples",
    "open_image",
]

__getattr__, __dir__ = door(__name__, __file__)
