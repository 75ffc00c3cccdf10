"""What settings allow, where several parts need to know it."""

from typing import Literal, TypeAlias

Alignment: TypeAlias = Literal["aligned", "paper"]
Blending: TypeAlias = Literal["none", "linear", "gaussian", "hann"]
# Where a cascade's context enters; "auto": the encoder's features where there are any, else the input.
Entrance: TypeAlias = Literal["auto", "features", "input", "logits", "none"]
# And what a look hands on: its decoder's map, its class probabilities, or both.
Handed: TypeAlias = Literal["both", "map", "probabilities"]
# Whether glass is left out; "auto": of slides.
Tissue: TypeAlias = Literal["auto"] | bool
# What prediction writes, and in which format the class map.
Output: TypeAlias = Literal["classes", "probabilities", "confidence", "entropy", "foveation", "passes", "polygons"]
Format: TypeAlias = Literal["geotiff", "ome-zarr"]
