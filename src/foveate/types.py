"""Names for the array types that cross module borders."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Raster: TypeAlias = NDArray[Any]  # (bands, height, width), in the dtype of the file
Array: TypeAlias = NDArray[Any]
BoolArray: TypeAlias = NDArray[np.bool_]
ByteArray: TypeAlias = NDArray[np.uint8]
# (height, width), class ids and ignore_index; of overlapping classes int32, see `foveate.membership`
LabelArray: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

IGNORE = 255  # label of pixels that count nowhere

Alignment: TypeAlias = Literal["aligned", "paper"]
Blending: TypeAlias = Literal["none", "linear", "gaussian", "hann"]
# Where a cascade's context enters; "auto": the encoder's features where there are any, else the input.
Entrance: TypeAlias = Literal["auto", "features", "input", "logits", "none"]
# And what a look hands on: its decoder's map, its class probabilities, or both.
Handed: TypeAlias = Literal["both", "map", "probabilities"]
# Whether glass is left out; "auto": of slides.
Tissue: TypeAlias = Literal["auto"] | bool
# Of geometry: those of the image's pixels, of its coordinate reference system, or longitude and latitude.
Coordinates: TypeAlias = Literal["auto", "pixels", "crs", "lonlat"]
# What prediction writes, and in which format the class map.
Output: TypeAlias = Literal["classes", "probabilities", "confidence", "entropy", "foveation", "passes", "polygons"]
Format: TypeAlias = Literal["geotiff", "ome-zarr"]
