"""Configuration of the segmentation network."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from foveate.config_base import Section


class NetworkConfig(Section):
    """A network by name.

    Attributes:
        architecture: any of segmentation_models_pytorch, such as "unet", "fpn", "deeplabv3plus", "segformer".
        encoder: any of segmentation_models_pytorch or timm, such as "resnet34" or "tf_efficientnet_lite0".
        weights: "imagenet" (downloaded by the library), the path of a checkpoint of the encoder, or null.
        options: further keyword arguments of the architecture.
    """

    architecture: str = "fpn"
    encoder: str = "tf_efficientnet_lite0"
    weights: str | None = "imagenet"
    options: dict[str, Any] = Field(default_factory=dict)
