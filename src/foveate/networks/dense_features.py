"""`DenseFeatures`: what the first stages of a pretrained encoder see around every pixel, for the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.errors import NetworkError
from foveate.networks.weights import load_encoder_weights

_STRIDE = 4
_EXAMPLES = "tf_efficientnet_lite0 or resnet18"


class DenseFeatures(nn.Module):
    """The features of an encoder's first stages, (B, C_in, h + 2 m, w + 2 m) -> (B, D, h, w): one vector a pixel.

    The stages halve their input twice; here their convolutions keep its size, and later ones are dilated instead, so
    that every pixel has what the encoder would give there if its grid began at that pixel. The outermost m pixels,
    which padding reaches, are cut off: a crop then has exactly the features of the whole.

    The features are frozen: always as in evaluation, and without a gradient.

    Attributes:
        channels: D.
        margin: m.

    Raises:
        NetworkError: when a feature depends on more than its neighbourhood, as with squeeze and excitation.

    Source: the algorithme a trous (Holschneider et al. 1989), as in Chen et al., arXiv 1606.00915.
    """

    def __init__(self, stages: nn.Module) -> None:
        super().__init__()
        self.stages = stages
        self.margin, self._padded = _without_strides(stages)
        self.requires_grad_(False).eval()
        self.channels = self._checked_channels()

    def train(self, mode: bool = True) -> Self:
        """Stay as in evaluation: statistics of an overview's crops are not those of photographs."""
        return super().train(False)

    def forward(self, overview: Tensor) -> Tensor:
        """Features (B, D, h, w) of an overview with its margin, (B, C_in, h + 2 m, w + 2 m)."""
        features: Tensor = self.stages(overview)
        return F.pad(features, [-self._padded] * 4)

    def _checked_channels(self) -> int:
        """D, after a look at whether features are one for each pixel, and of nothing beyond the margin."""
        image = torch.rand(1, _bands(self.stages), *[2 * self.margin + 3] * 2)
        changed = image.clone()
        changed[..., [0, -1]] = changed[..., [0, -1], :] = 5.0
        features = self(image)
        local = torch.allclose(features[..., 1:2, 1:2], self(changed)[..., 1:2, 1:2], atol=1e-5)
        if features.shape[-2:] != (3, 3) or not local:
            raise NetworkError(
                "a policy needs features of a neighbourhood, one for each pixel; this encoder pools in other ways, "
                f"use {_EXAMPLES}"
            )
        return int(features.shape[1])


class FirstStages(nn.Module):
    """The second of the features (B, D, h / 4, w / 4) of one of timm's models, all that it does not need removed."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        model.prune_intermediate_layers([1], prune_norm=True, prune_head=True)
        self.model: Any = model

    def forward(self, image: Tensor) -> Tensor:
        """Features of an image (B, C_in, h, w)."""
        features: Tensor
        (features,) = self.model.forward_intermediates(image, indices=[1], intermediates_only=True)
        return features


def dense_features(encoder: str, *, in_channels: int = 3, weights: str | None = "imagenet") -> DenseFeatures:
    """The first two stages of one of timm's convolutional encoders, as `DenseFeatures`.

    Args:
        encoder: name, such as "tf_efficientnet_lite0" or "resnet18".
        in_channels: number of image bands.
        weights: "imagenet", the path of a checkpoint of the encoder, or None for random ones.

    Raises:
        NetworkError: when there is no such encoder, it does not suit, or its weights cannot be had.
    """
    try:
        stages = FirstStages(timm.create_model(encoder, pretrained=weights == "imagenet", in_chans=in_channels))
        side = stages.eval()(torch.zeros(1, in_channels, 64, 64)).shape[-1]
    except Exception as error:  # timm raises many kinds; what the user can do is the same
        raise NetworkError(
            f"cannot build foveation.policy.encoder {encoder!r}: {error}. Name one of timm's convolutional encoders, "
            f"as {_EXAMPLES}, and give foveation.policy.weights=PATH where nothing can be downloaded"
        ) from error
    if side != 64 // _STRIDE:
        raise NetworkError(f"the second stage of {encoder} is not at a quarter of its input; use {_EXAMPLES}")
    if weights not in (None, "imagenet"):
        load_encoder_weights(stages, Path(weights))
    return DenseFeatures(stages)


def _bands(stages: nn.Module) -> int:
    """C_in: what the first convolution takes."""
    return next(layer.in_channels for layer in stages.modules() if isinstance(layer, nn.Conv2d))


def _without_strides(stages: nn.Module) -> tuple[int, int]:
    """Replace strides by dilation, in place.

    Returns:
        How far a feature sees, pixels to each side, and how many of them padding gives back to the output's size.
    """
    factor, margin, padded = 1, 0, 0
    for layer in stages.modules():  # in the order in which they are applied
        if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            continue
        kernel, stride = _side(layer.kernel_size), _side(layer.stride)
        if kernel % 2 == 0 or stride > 2:
            raise NetworkError(f"strides are replaced in convolutions of odd size and stride 1 or 2, not in {layer}")
        reach = factor * (kernel // 2)
        padding = reach if isinstance(layer, nn.Conv2d) else 0  # pooling may not be padded as far as it is dilated
        layer.stride, layer.dilation, layer.padding = (1, 1), (factor, factor), (padding, padding)
        margin, padded = margin + reach, padded + padding
        factor *= stride if kernel > 1 else 1  # one of 1 x 1 is the shortcut beside what has the same stride
    return margin, padded


def _side(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]
