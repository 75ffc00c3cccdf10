"""`build_network`: a segmentation network by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from foveate.errors import NetworkError
from foveate.networks.batch_norm import allow_single_values
from foveate.networks.menu import find_architecture, find_encoder
from foveate.networks.recipe import Recipe
from foveate.networks.weights import installed_weights, load_encoder_weights

_IMAGENET = "imagenet"


def build_network(
    architecture: str = "fpn",
    encoder: str = "tf_efficientnet_lite0",
    *,
    classes: int,
    in_channels: int = 3,
    weights: str | None = _IMAGENET,
    **options: Any,
) -> nn.Module:
    """Build a network (N, in_channels, P, P) -> (N, classes, P, P) that returns logits.

    Case is ignored in names, and `-` is read as `_`. Every network trains on batches of one too. With an architecture
    of deep supervision it returns `foveate.networks.deep_supervision.DeepSupervision` in train mode.

    Args:
        architecture: one of segmentation_models_pytorch, or of the original's decoders: c1, c1_deepsup, ppm,
            ppm_deepsup (and upernet, which is the library's).
        encoder: one of segmentation_models_pytorch or timm, or of the original's: mobilenetv2dilated,
            resnet18dilated, resnet50dilated, resnet101dilated, resnext101, hrnetv2, u_net, attention_u_net.
        classes: number of output channels.
        in_channels: number of input channels.
        weights: "imagenet" (downloaded, where the extra `demo` does not bring them), the path of a checkpoint of the
            encoder (.pth, .pt or .safetensors), or None.
        options: further keyword arguments of the architecture; of the encoder where the architecture is c1 or ppm.

    Raises:
        NetworkError: for an unknown name, names that do not go together, options that do not fit, or weights that
            cannot be had.
    """
    architecture = find_architecture(architecture)
    recipe = Recipe(architecture, find_encoder(encoder, architecture), classes, in_channels, options)
    name = f"{architecture} with encoder {encoder!r}"
    if weights == _IMAGENET:
        weights = installed_weights(encoder) or weights  # nothing is downloaded that is there
    network = _with_imagenet_weights(recipe, name) if weights == _IMAGENET else _with_random_weights(recipe, name)
    if weights not in (None, _IMAGENET):
        load_encoder_weights(network.get_submodule("encoder"), weights)
    allow_single_values(network)
    return network


def _with_random_weights(recipe: Recipe, name: str) -> nn.Module:
    try:
        return recipe.build(pretrained=False)
    except NetworkError:
        raise
    except Exception as error:  # smp and timm raise many kinds; what the user can do is the same
        raise NetworkError(f"cannot build {name}: {error}; change network.options or choose another pair") from error


def _with_imagenet_weights(recipe: Recipe, name: str) -> nn.Module:
    try:
        return recipe.build(pretrained=True)
    except NetworkError:
        raise
    except Exception as error:
        _with_random_weights(recipe, name)  # raises where the options are the reason, not the weights
        raise NetworkError(
            f"cannot build {name}: its ImageNet weights could not be downloaded ({error}). Give a file with "
            f"network.weights=PATH (.pth, .pt or .safetensors), or start from random weights with network.weights=none"
        ) from error
