"""`UNet`: the plain U-Net, without or with attention gates, as an encoder with one full-size feature map."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.modules import Conv2dReLU
from torch import Tensor, nn


class PlainSkip(nn.Module):
    """Passes a skip connection on as it is.

    Args:
        channels: of the skip connection and of its context.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, skip: Tensor, context: Tensor) -> Tensor:
        """The skip connection."""
        return skip


class AttentionGate(nn.Module):
    """Fades a skip connection, place by place, by what the coarser context says about it.

    Args:
        channels: of the skip connection and of its context.

    Source: Oktay et al., "Attention U-Net" (2018), additive attention.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.skip = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.context = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.attention = nn.Sequential(nn.ReLU(), nn.Conv2d(hidden, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, skip: Tensor, context: Tensor) -> Tensor:
        """The skip connection (N, C, h, w) times its attention in (0, 1); the context is (N, C, h, w)."""
        weight: Tensor = self.attention(self.skip(skip) + self.context(context))
        return skip * weight


class UNet(nn.Module):
    """U-Net with batch normalisation and "same" padding, without its last convolution.

    Args:
        in_channels: bands of the input.
        width: channels at full size; doubled by each halving. At least 4.
        depth: number of halvings.
        gate: makes what a skip connection passes, `PlainSkip` or `AttentionGate`, for its number of channels.

    Attributes:
        out_channels: of the one feature map, (width,).

    Source: Ronneberger et al., "U-Net" (2015).
    """

    def __init__(
        self, in_channels: int = 3, *, width: int = 64, depth: int = 4, gate: Callable[[int], nn.Module] = PlainSkip
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.stem = _double_convolution(in_channels, width)
        self.down = nn.ModuleList(_double_convolution(fine, 2 * fine) for fine in widths[:-1])
        self.up = nn.ModuleList(Conv2dReLU(2 * fine, fine, kernel_size=3, padding=1) for fine in widths[:-1])
        self.gates = nn.ModuleList(gate(fine) for fine in widths[:-1])
        self.join = nn.ModuleList(_double_convolution(2 * fine, fine) for fine in widths[:-1])
        self.out_channels: tuple[int, ...] = (width,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C_in, H, W), sides of at least 2^depth -> one feature map (N, width, H, W)."""
        features, skips = self.stem(image), []
        for down in self.down:
            skips.append(features)
            features = down(F.max_pool2d(features, 2))
        for level in reversed(range(len(skips))):
            skip = skips[level]
            context = self.up[level](F.interpolate(features, size=skip.shape[-2:], mode="bilinear"))
            features = self.join[level](torch.cat([self.gates[level](skip, context), context], dim=1))
        return [features]


def _double_convolution(channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        Conv2dReLU(channels, out_channels, kernel_size=3, padding=1),
        Conv2dReLU(out_channels, out_channels, kernel_size=3, padding=1),
    )
