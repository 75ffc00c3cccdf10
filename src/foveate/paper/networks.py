"""What the original has and no library: C1, PPM, HRNet joined, U-Net with gates; and GLNet's branches."""

import copy
from typing import Any

import timm
import torch
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import PSPModule
from torch import Tensor, nn

from foveate.errors import NetworkError
from foveate.networks.parts import DeepSupervision, in_three_parts
from foveate.patches.scales import crop_central

_PYRAMID_CHANNELS = 512
_DROPOUT = 0.1


def head(kind: str, channels: int, classes: int) -> nn.Sequential:
    """Features (N, channels, h, w) -> logits (N, classes, h, w).

    "c1" is one convolution of 3 x 3; "ppm" is pyramid pooling over grids of 1, 2, 3 and 6.

    Source: github.com/CSAILVision/semantic-segmentation-pytorch, `C1` and `PPM`; the latter is of Zhao et al., "Pyramid
    Scene Parsing Network" (2017).
    """
    if kind == "c1":
        return _classifier(channels, channels // 4, classes, dropout=0.0)
    pyramid = PSPModule(channels, _PYRAMID_CHANNELS, (1, 2, 3, 6))
    return nn.Sequential(pyramid, nn.Dropout2d(_DROPOUT), nn.Conv2d(_PYRAMID_CHANNELS, classes, 1))


def auxiliary_head(kind: str, channels: int, last_channels: int, classes: int) -> nn.Module:
    """That of deep supervision, on `channels` of the stage before the one with `last_channels`."""
    return _classifier(channels, last_channels // 4, classes, dropout=_DROPOUT if kind == "ppm" else 0.0)


def _classifier(channels: int, hidden: int, classes: int, *, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        Conv2dReLU(channels, hidden, kernel_size=3, padding=1), nn.Dropout2d(dropout), nn.Conv2d(hidden, classes, 1)
    )


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
        resized = [
            nn.functional.interpolate(branch, size=size, mode="bilinear", align_corners=False) for branch in coarser
        ]
        return [torch.cat([finest, *resized], dim=1)]


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
        gated: fade the skip connections by an `AttentionGate` each.

    Attributes:
        out_channels: of the one feature map, (width,).

    Source: Ronneberger et al., "U-Net" (2015).
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64, depth: int = 4, gated: bool = False) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.stem = _double_convolution(in_channels, width)
        self.down = nn.ModuleList(_double_convolution(fine, 2 * fine) for fine in widths[:-1])
        self.up = nn.ModuleList(Conv2dReLU(2 * fine, fine, kernel_size=3, padding=1) for fine in widths[:-1])
        self.gates = nn.ModuleList(map(AttentionGate, widths[:-1])) if gated else None
        self.join = nn.ModuleList(_double_convolution(2 * fine, fine) for fine in widths[:-1])
        self.out_channels: tuple[int, ...] = (width,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C_in, H, W), sides of at least 2^depth -> one feature map (N, width, H, W)."""
        features, skips = self.stem(image), []
        for down in self.down:
            skips.append(features)
            features = down(nn.functional.max_pool2d(features, 2))
        for level in reversed(range(len(skips))):
            skip = skips[level]
            context = self.up[level](nn.functional.interpolate(features, size=skip.shape[-2:], mode="bilinear"))
            skip = skip if self.gates is None else self.gates[level](skip, context)
            features = self.join[level](torch.cat([skip, context], dim=1))
        return [features]


def _double_convolution(channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        Conv2dReLU(channels, out_channels, kernel_size=3, padding=1),
        Conv2dReLU(out_channels, out_channels, kernel_size=3, padding=1),
    )


class Branches(nn.Module):
    """A local and a global network that share features at every stage, and one prediction of both.

    (N, C_in, P, 2 P), the narrow patch beside the wide one, to logits (N, classes, h, w) over the narrow window. In
    train mode the local branch's over the same window, and the global one's over the wide window, are auxiliary.

    Args:
        network: of segmentation_models_pytorch, with encoder, decoder and segmentation head.
        share: side of the narrow window as a share of the wide one's.

    Raises:
        NetworkError: for any other network.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        if not in_three_parts(network):
            raise NetworkError(
                "glnet needs a network with the encoder, decoder and segmentation head of segmentation_models_pytorch, "
                f"got {type(network).__name__}; use one of its architectures, such as fpn or unet"
            )
        local: Any = network
        self.local, self.wide = local, copy.deepcopy(local)
        self._share, self._stages = share, [width for width in local.encoder.out_channels[1:] if width]
        self.to_local, self.to_wide = (nn.ModuleList(map(_given, self._stages)) for _ in range(2))
        head = next(part for part in local.segmentation_head.modules() if isinstance(part, nn.Conv2d))
        self.together = nn.Conv2d(2 * head.in_channels, head.out_channels, 3, padding=1)

    def forward(self, both: Tensor) -> Tensor | DeepSupervision:
        """Logits of patches side by side."""
        narrow, wide = both.chunk(2, dim=-1)
        near, far = self._shared(list(self.local.encoder(narrow)), list(self.wide.encoder(wide)))
        seen, around = self.local.decoder(near), self.wide.decoder(far)
        cropped = crop_central(around, self._share, seen.shape[-1])
        logits: Tensor = self.together(torch.cat([seen, cropped], dim=1))
        if not self.training:
            return logits
        return DeepSupervision(logits, (self.local.segmentation_head(seen), self.wide.segmentation_head(around)))

    def _shared(self, near: list[Tensor], far: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The features of both branches, each with the other's; the first are the input itself."""
        stages = [i for i, one in enumerate(near) if i and one.shape[1]]
        for i, to_local, to_wide in zip(stages, self.to_local, self.to_wide, strict=True):
            side = near[i].shape[-1]
            given = to_local(crop_central(far[i], self._share, side)), to_wide(_pasted(near[i], self._share))
            near[i], far[i] = near[i] + given[0], far[i] + given[1]
        return near, far


def _given(channels: int) -> nn.Module:
    """What one branch makes of the other's features."""
    return nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))


def _pasted(features: Tensor, share: float) -> Tensor:
    """Features (N, D, h, h) over a narrow window as (N, D, h, h) over the wide one around it, zero elsewhere."""
    side = features.shape[-1]
    inside = max(1, round(share * side))
    small = nn.functional.interpolate(
        features, size=(inside, inside), mode="bilinear", align_corners=False, antialias=True
    )
    at = ((torch.arange(side, device=features.device, dtype=features.dtype) + 0.5) * (2 / side) - 1) / share
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).expand(len(features), -1, -1, -1)
    return nn.functional.grid_sample(small, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
