"""`HRNetV2`: the four resolutions of timm's HRNet, joined."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HRNetV2(nn.Module):
    """HRNet-W48 whose branches are resized to the finest and concatenated: 48 + 96 + 192 + 384 = 720 channels.

    timm's own feature extractor gives the branches apart, and has no joined stage.

    Args:
        in_channels: bands of the input.
        pretrained: download ImageNet weights.
        options: further keyword arguments of timm's `hrnet_w48`.

    Attributes:
        out_channels: of the one feature map, (720,).

    Source: Sun et al., "High-Resolution Representations for Labeling Pixels and Regions" (2019).
    """

    def __init__(self, in_channels: int = 3, *, pretrained: bool = False, **options: Any) -> None:
        super().__init__()
        branches = {"features_only": True, "feature_location": "", "out_indices": (1, 2, 3, 4)}
        self.model = timm.create_model(
            "hrnet_w48", pretrained=pretrained, in_chans=in_channels, **{**branches, **options}
        )
        self.out_channels: tuple[int, ...] = (sum(self.model.feature_info.channels()),)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C_in, H, W) -> one feature map (N, 720, H / 4, W / 4)."""
        finest, *coarser = self.model(image)
        size = finest.shape[-2:]
        resized = [F.interpolate(branch, size=size, mode="bilinear", align_corners=False) for branch in coarser]
        return [torch.cat([finest, *resized], dim=1)]
