"""Data: image readers, labels, which places to look at, and the batches made of them.

Start at `open_image` to read windows of a file, at `DataConfig` to describe a data set, and at
`foveate.data.datamodule.FoveateDataModule` (which alone needs Lightning) to train on one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.data.config import DataConfig
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
    "load_samples",
    "open_image",
]

_HOMES = {
    "DataConfig": "config",
    "LabelReader": "labels",
    "Location": "locations",
    "LocationBatch": "locations",
    "LocationSpec": "locations",
    "Sample": "manifest",
    "load_samples": "manifest",
}


def __getattr__(name: str) -> Any:
    """Imported when first used: a configuration is read before torch is loaded."""
    if name not in __all__:
        raise AttributeError(f"module 'foveate.data' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"foveate.data.{_HOMES.get(name, 'readers')}"), name)
