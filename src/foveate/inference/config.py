"""Configuration of inference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config_base import Section
from foveate.types import Blending


class InferenceConfig(Section):
    """How an image is walked through.

    Attributes:
        block_size: side of the blocks of the output that are worked on at a time, level-0 pixels. Memory is bounded
            by it; a multiple of 512 writes every tile of the result once.
        overlap: share of a target's side that neighbouring targets overlap, in [0, 0.9].
        blending: importance of a prediction over its target where targets overlap.
        stitching: "average" takes the weighted mean of the predictions of a pixel, "max_score" the surest one.
        batch_size: patches per forward pass; the last batch is filled up, so that there is one shape throughout.
        precision: "32", or "bf16" to run the network under autocast.
    """

    block_size: int = Field(default=2048, ge=16)
    overlap: float = Field(default=0.25, ge=0, le=0.9)
    blending: Blending = "hann"
    stitching: Literal["average", "max_score"] = "average"
    batch_size: int = Field(default=16, ge=1)
    precision: Literal["32", "bf16"] = "32"
