"""`build_network`: a segmentation network by name."""

from __future__ import annotations

import difflib
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from foveate.errors import NetworkError
from foveate.networks.weights import load_encoder_weights

ARCHITECTURES: tuple[str, ...] = tuple(sorted(smp.MODEL_ARCHITECTURES_MAPPING))


def build_network(
    architecture: str = "fpn",
    encoder: str = "tf_efficientnet_lite0",
    *,
    classes: int,
    in_channels: int = 3,
    weights: str | None = "imagenet",
    **options: Any,
) -> nn.Module:
    """Build a network (N, in_channels, P, P) -> (N, classes, P, P) that returns logits.

    Args:
        architecture: a name of segmentation_models_pytorch, case ignored.
        encoder: a name of segmentation_models_pytorch or of timm.
        classes: number of output channels.
        in_channels: number of input channels.
        weights: "imagenet", the path of a checkpoint of the encoder (.pth, .pt or .safetensors), or None.
        options: further keyword arguments of the architecture.

    Raises:
        NetworkError: for an unknown name, options that do not fit, or weights that cannot be had.
    """
    architecture = architecture.lower()
    if architecture not in ARCHITECTURES:
        raise NetworkError(f"unknown architecture {architecture!r}; {_nearest(architecture, list(ARCHITECTURES))}")
    downloads = weights == "imagenet"
    name = _encoder_name(encoder)
    pretrained = (True if name.startswith("tu-") else "imagenet") if downloads else None
    try:
        network: nn.Module = smp.create_model(
            architecture, name, encoder_weights=pretrained, in_channels=in_channels, classes=classes, **options
        )
    except Exception as error:  # smp, timm and the hub raise many kinds; what the user can do is the same
        hint = "give a file as network.weights, or null to start from random weights" if downloads else "see its docs"
        raise NetworkError(f"cannot build {architecture} with encoder {encoder!r}: {error}; {hint}") from error
    if weights is not None and not downloads:
        load_encoder_weights(network.get_submodule("encoder"), weights)
    return network


def _encoder_name(encoder: str) -> str:
    """The name segmentation_models_pytorch knows an encoder by; timm's own have the prefix tu-."""
    plain = encoder.removeprefix("tu-")
    known = smp.encoders.get_encoder_names()
    if encoder in known and not encoder.startswith("timm-"):
        return encoder
    if timm.is_model(plain):
        return f"tu-{plain}"
    raise NetworkError(f"unknown encoder {encoder!r}; {_nearest(plain, sorted({*known, *timm.list_models()}))}")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(known[:12])}, ..."
