"""Configuration of inference."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from foveate.config_base import Section
from foveate.types import Blending, Tissue
from foveate.writers import PolygonsConfig

Output: TypeAlias = Literal["classes", "probabilities", "confidence", "entropy", "foveation", "passes", "polygons"]
Format: TypeAlias = Literal["geotiff", "ome-zarr"]
# A number of seconds, as in "20 s", or a word.
Budget: TypeAlias = Annotated[str, Field(pattern=r"^(fixed|all|\d+(\.\d+)? ?s)$")]
AUTO = 0  # what stands for "auto" among sizes, until `foveate.inference.sizes.sized` finds a number


def _not_auto(value: Any) -> Any:
    if value == AUTO and not isinstance(value, bool):
        raise ValueError('0 is no size; give a number, or "auto"')
    return AUTO if value == "auto" else value


Size: TypeAlias = Annotated[
    int,
    BeforeValidator(_not_auto),
    PlainSerializer(lambda size: "auto" if size == AUTO else size, return_type=int | str),
]
Weight: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class InferenceConfig(Section):
    """How an image is walked through.

    Attributes:
        block_size: side of the blocks of the output that are worked on at a time, level-0 pixels. Memory is bounded
            by it; a multiple of 512 writes every tile of the result once.
        planner: "per_target" passes every target at the scale of its cell; "pyramid" passes the widest windows
            everywhere and narrower ones inside them, each used for all that it covers, see `PyramidPredictor`; None
            leaves it to the estimator.
        looks: of "pyramid", fields of view and the central part of their windows that is used, as a share of the side
            in (0, 1]: `[[64, 0.5], [64, 1], [128, 1]]` looks at 128 pixels everywhere, closer at whole windows of 64
            where that is uncertain, and where it is most uncertain at windows of 64 that overlap. None looks once at
            each scale in use, at the narrowest with `keep`. `foveate tune` chooses them.
        keep: of "pyramid" without `looks`, the central part of the narrowest windows that is used.
        budget: of "pyramid", most passes per megapixel of the image; "fixed" is what one pass a target costs; "20 s"
            as many as the network passes in so many seconds; "all" makes all; None leaves it to the estimator.
        fusion: of "pyramid", how much each look counts where there are several: as the policy's probabilities of its
            scale say ("policy"; without one, each ten times as much as the next wider), or one weight for each look,
            narrowest support first: `foveate tune` chooses them.
        overlap: share of a target's side that neighbouring targets overlap, in [0, 0.9].
        blending: of "per_target", importance of a prediction over its target, where several cover a pixel.
        stitching: "average" takes the weighted mean of the predictions of a pixel, "max_score" the surest one.
        tta: test-time augmentation: "flips" passes every patch as it is, mirrored both ways and turned upside down,
            "d4" in all eight ways to mirror and turn it, and takes the mean of the probabilities. Each way is a pass:
            a budget buys a fourth, or an eighth, of the looks. Not for cascades.
        batch_size: patches per forward pass; the last batch is filled up, so that there is one shape throughout.
            "auto" is as many as the device's memory holds, at most 64 on a GPU, 16 on the processor.
        precision: "32", or "bf16" to run the network under autocast; "auto" is bf16 on GPUs that have it, for networks
            that were trained in it.
        tissue: leave out the glass around tissue, found on the slide's overview: "auto" does so for slides (in colour,
            with pixels of at most 10 micrometres), true for every image, false for none.
        glass: name of the class that glass gets when it is left out; None writes no class there.
        outputs: what is written: "classes" (always), "probabilities", "confidence", "entropy", "foveation", "passes",
            "polygons".
        format: of the class map: "geotiff" (cloud optimised) or "ome-zarr" (labels; needs the extra `zarr`).
        polygons: see `PolygonsConfig`.
    """

    block_size: Size = 2048
    planner: Literal["per_target", "pyramid"] | None = None
    looks: tuple[tuple[int, Annotated[float, Field(gt=0, le=1)]], ...] | None = None
    keep: float = Field(default=0.5, gt=0, le=1)
    budget: Annotated[float, Field(gt=0)] | Budget | None = None
    fusion: Literal["policy"] | tuple[Weight, ...] = "policy"
    overlap: float = Field(default=0.25, ge=0, le=0.9)
    blending: Blending = "hann"
    stitching: Literal["average", "max_score"] = "average"
    tta: Literal["flips", "d4"] | None = None
    batch_size: Size = 16
    precision: Literal["32", "bf16", "auto"] = "32"
    tissue: Tissue = "auto"
    glass: str | None = None
    outputs: tuple[Output, ...] = ("classes", "foveation", "passes")
    format: Format = "geotiff"
    polygons: PolygonsConfig = PolygonsConfig()

    @property
    def passes_of_a_patch(self) -> int:
        """Forward passes for each patch that is looked at."""
        return {None: 1, "flips": 4, "d4": 8}[self.tta]

    @field_validator("block_size", "batch_size")
    @classmethod
    def _large_enough(cls, size: int, info: ValidationInfo) -> int:
        least = 16 if info.field_name == "block_size" else 1
        if size != AUTO and size < least:
            raise ValueError(f"Input should be greater than or equal to {least}")
        return size

    @field_validator("outputs")
    @classmethod
    def _in_order(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        """Each once, in one order, with the class map, which everything else builds on."""
        return tuple(name for name in get_args(Output) if name in {"classes", *outputs})
