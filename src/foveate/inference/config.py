"""Configuration of inference."""

import math
import re
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from foveate.config_base import Section
from foveate.types import Blending, Format, Output, Tissue
from foveate.writers import PolygonsConfig

_SHARE_OR_SECONDS = re.compile(r"(\d+(?:\.\d+)?) ?[s%]")


def _checked_budget(value: Any) -> Any:
    if value is None or value in ("fixed", "all"):
        return value
    match = _SHARE_OR_SECONDS.fullmatch(value) if isinstance(value, str) else None
    with suppress(TypeError, ValueError, OverflowError):
        number = float(match[1] if match else value)
        if not isinstance(value, bool) and 0 < number < math.inf:
            return value if match else number
    raise ValueError('give passes per megapixel, more than 0; fixed; a share of that, such as 50%; "20 s"; or all')


# Passes per megapixel, a share of what one fixed view costs, as in "50%", seconds, as in "20 s", or a word.
Budget: TypeAlias = Annotated[float | str, BeforeValidator(_checked_budget)]
AUTO = 0  # what stands for "auto" among sizes, until `foveate.inference.runner.sized` finds a number


def _not_auto(value: Any) -> Any:
    if value == AUTO and not isinstance(value, bool):
        raise ValueError('0 is not a size; give a number, or "auto"')
    return AUTO if value == "auto" else value


Size: TypeAlias = Annotated[
    int,
    BeforeValidator(_not_auto),
    PlainSerializer(lambda size: "auto" if size == AUTO else size, return_type=int | str),
]
Weight: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Tta: TypeAlias = Literal["flips", "d4"]
PASSES_OF_A_PATCH: dict[Tta | None, int] = {None: 1, "flips": 4, "d4": 8}


class InferenceConfig(Section):
    """How a run predicts an image.

    Attributes:
        block_size: side of a block, the part of the output that is predicted at a time, in image pixels. It bounds the
            memory. With a multiple of 512, each tile of the result is written once. "auto" is 2048; 4096 on a GPU with
            memory for that.
        planner: "per_target": one pass per target, at the scale of its cell. "pyramid": passes with the widest windows
            everywhere and with narrower windows inside them; each pass counts for its whole window. By default the
            estimator decides.
        looks: for "pyramid": fields of view, each with the central share of its windows that is used, in (0, 1]. `[[64,
            0.5], [64, 1], [128, 1]]` looks at 128 pixels everywhere, at whole windows of 64 where that is uncertain,
            and at overlapping windows of 64 where it is most uncertain. The default is one look at each scale in use,
            of which the narrowest keeps the central half of its windows; a single scale has a look at whole windows
            too. `foveate tune` chooses looks.
        budget: for "pyramid": the most passes per megapixel of the image; "fixed" (the cost of one pass per target); a
            share of that such as "50%", as `foveate tune` counts; a time such as "20 s" (as many passes as the network
            makes in it); or "all". By default the estimator decides.
        fusion: for "pyramid": the weight of each look where several cover a pixel. "policy" takes the probabilities of
            the policy (without a policy, each look has ten times the weight of the next wider one); or give one weight
            per look, narrowest first. `foveate tune` chooses them.
        overlap: share of a target's side that neighbouring targets overlap, in [0, 0.9].
        blending: for "per_target": how the weight of a prediction falls towards the border of its target, where several
            cover a pixel.
        tta: test-time augmentation: "flips" passes every patch as it is, mirrored in both directions and rotated by 180
            degrees; "d4" passes all eight rotations and reflections. The probabilities are averaged. Each version is a
            pass, so a budget pays for a quarter or an eighth of the looks. Not for cascades.
        batch_size: patches per forward pass; the last batch is padded, so that all have one shape. "auto" takes on a
            GPU as many as fit into its memory, at most 64; on a processor as many as have 2**17 pixels, at most 16: 8
            of 128 pixels, 2 of 256.
        precision: "32"; "bf16" (the network runs under autocast); or "auto" (bf16 on GPUs that support it, for networks
            that were trained with it).
        tissue: leave out the glass around tissue, which is found on the overview of the slide: "auto" (slides: in
            colour, with pixels of at most 10 micrometres), true (every image) or false (none).
        outputs: what to write: "classes" (always), "probabilities", "confidence", "entropy", "foveation", "passes",
            "polygons".
        format: format of the class map: "geotiff" (cloud-optimised) or "ome-zarr" (labels; needs the extra `zarr`).
        polygons: how polygons are written, see `inference.polygons`.
    """

    block_size: Size = Field(default=AUTO, validate_default=False)
    planner: Literal["per_target", "pyramid"] | None = None
    looks: tuple[tuple[int, Annotated[float, Field(gt=0, le=1)]], ...] | None = None
    budget: Budget | None = None
    fusion: Literal["policy"] | tuple[Weight, ...] = "policy"
    overlap: float = Field(default=0.25, ge=0, le=0.9)
    blending: Blending = "hann"
    tta: Tta | None = None
    batch_size: Size = Field(default=AUTO, validate_default=False)
    precision: Literal["32", "bf16", "auto"] = "32"
    tissue: Tissue = "auto"
    outputs: tuple[Output, ...] = ("classes", "foveation", "passes")
    format: Format = "geotiff"
    polygons: PolygonsConfig = PolygonsConfig()

    @property
    def passes_of_a_patch(self) -> int:
        """Forward passes for each patch that is looked at."""
        return PASSES_OF_A_PATCH[self.tta]

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
