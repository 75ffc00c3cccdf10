"""Configuration of the segmentation network."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from foveate.config_base import Section, Weights

_NAMED = ("architecture", "encoder", "weights")
_NO_OPTIONS = {*_NAMED, "classes", "in_channels"}


class NetworkConfig(Section):
    """A network by name, or your own by import path. A plain string is read as `factory`.

    Attributes:
        architecture: an architecture of segmentation_models_pytorch, such as "unet", "fpn", "upernet" or "segformer",
            or one of the original's decoders "c1", "c1_deepsup", "ppm" and "ppm_deepsup".
        encoder: an encoder of segmentation_models_pytorch or timm, such as "resnet34" or "tf_efficientnet_lite0", or
            one of the original's, such as "resnet50dilated", "hrnetv2" or "u_net". `foveate networks` lists them.
        weights: "imagenet" (downloaded by the library), the path of a checkpoint of the encoder (.pth, .pt or
            .safetensors), or "none" for random weights.
        factory: "package.module:callable", instead of the three above. It is called with `classes`, `in_channels` and
            the options, and must return a module that returns logits.
        options: further keyword arguments of the architecture (of the encoder for c1 and ppm), or of the factory.
    """

    architecture: str = "fpn"
    encoder: str = "tf_efficientnet_lite0"
    weights: Weights = "imagenet"
    factory: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_string(cls, values: Any) -> Any:
        return {"factory": values} if isinstance(values, str) else values

    @field_validator("factory")
    @classmethod
    def _check_path(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\w+(\.\w+)*:\w+", value):
            raise ValueError(
                "a network is {architecture: NAME, encoder: NAME}, or the import path of your own, "
                "package.module:callable"
            )
        return value

    @field_validator("options")
    @classmethod
    def _check_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(_NO_OPTIONS & set(value))
        if taken:
            raise ValueError(f"{', '.join(taken)} cannot be options; they are set elsewhere, in network and data")
        return value

    @model_validator(mode="after")
    def _check_either(self) -> Self:
        given = [name for name in _NAMED if name in self.model_fields_set]
        if self.factory is not None and given:
            raise ValueError(f"factory {self.factory} builds the whole network; remove {', '.join(given)} or factory")
        return self

    @model_serializer(mode="wrap")
    def _only_what_counts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Either the names or the factory, so that the tree is accepted again."""
        left_out = _NAMED if self.factory is not None else ("factory",)
        return {key: value for key, value in dump(self).items() if key not in left_out}
