"""The original's segmentation heads, which no library has: C1 and pyramid pooling (PPM)."""

from __future__ import annotations

from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import PSPModule
from torch import nn

_PYRAMID_CHANNELS = 512
_DROPOUT = 0.1


def c1_head(channels: int, classes: int) -> nn.Sequential:
    """C1: features (N, channels, h, w) -> logits (N, classes, h, w) through one convolution of 3 x 3.

    Source: github.com/CSAILVision/semantic-segmentation-pytorch, `C1`.
    """
    return _classifier(channels, channels // 4, classes, dropout=0.0)


def ppm_head(channels: int, classes: int) -> nn.Sequential:
    """Pyramid pooling over grids of 1, 2, 3 and 6: features (N, channels, h, w) -> logits (N, classes, h, w).

    Source: Zhao et al., "Pyramid Scene Parsing Network" (2017), as in semantic-segmentation-pytorch, `PPM`.
    """
    pyramid = PSPModule(channels, _PYRAMID_CHANNELS, (1, 2, 3, 6))
    return nn.Sequential(pyramid, nn.Dropout2d(_DROPOUT), nn.Conv2d(_PYRAMID_CHANNELS, classes, 1))


def c1_auxiliary(channels: int, last_channels: int, classes: int) -> nn.Module:
    """The auxiliary head of C1_deepsup, on `channels` of the stage before the one with `last_channels`."""
    return _classifier(channels, last_channels // 4, classes, dropout=0.0)


def ppm_auxiliary(channels: int, last_channels: int, classes: int) -> nn.Module:
    """The auxiliary head of PPM_deepsup, on `channels` of the stage before the one with `last_channels`."""
    return _classifier(channels, last_channels // 4, classes, dropout=_DROPOUT)


def _classifier(channels: int, hidden: int, classes: int, *, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        Conv2dReLU(channels, hidden, kernel_size=3, padding=1), nn.Dropout2d(dropout), nn.Conv2d(hidden, classes, 1)
    )
