"""Configuration of inference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foveate.config_base import Section
from foveate.types import Blending


class InferenceConfig(Section):
    """How an image is walked through.

    Attributes:
        block_size: side of the blocks of the output that are worked on at a time, level-0 pixels. Memory is bounded
            by it; a multiple of 512 writes every tile of the result once.
        planner: "per_target" passes every target at the scale of its cell; "pyramid" passes the widest windows
            everywhere and narrower ones inside them, each used for all that it covers, see `PyramidPredictor`.
        keep: of "pyramid", side of the central part of a window that is used, as a share of its side, in (0, 1].
        budget: of "pyramid", most passes per megapixel of the image; "fixed" is what one pass a target costs; None
            makes all.
        fusion: of "pyramid", how much each scale counts where several looked: as the policy's probabilities there say
            ("policy"; equally without one), or one weight for each scale, narrowest first.
        overlap: share of a target's side that neighbouring targets overlap, in [0, 0.9].
        blending: importance of a prediction over its target, or over its support, where several cover a pixel.
        stitching: "average" takes the weighted mean of the predictions of a pixel, "max_score" the surest one.
        batch_size: patches per forward pass; the last batch is filled up, so that there is one shape throughout.
        precision: "32", or "bf16" to run the network under autocast.
    """

    block_size: int = Field(default=2048, ge=16)
    planner: Literal["per_target", "pyramid"] = "per_target"
    keep: float = Field(default=0.5, gt=0, le=1)
    budget: Annotated[float, Field(gt=0)] | Literal["fixed"] | None = None
    fusion: Literal["policy"] | tuple[Annotated[float, Field(gt=0)], ...] = "policy"
    overlap: float = Field(default=0.25, ge=0, le=0.9)
    blending: Blending = "hann"
    stitching: Literal["average", "max_score"] = "average"
    batch_size: int = Field(default=16, ge=1)
    precision: Literal["32", "bf16"] = "32"
