"""The two small networks beside the segmentation network: the policy, and what tells a patch's scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PolicyNetwork(nn.Module):
    """Three 3x3 convolutions from the overview to scale logits.

    The convolutions are unpadded: the input carries a margin of real (at the image's border reflected) overview
    pixels instead of zeros. A decision then depends on its neighbourhood alone, so that training may see crops, and
    inference blocks, with exactly the values of a pass over the whole overview.

    Args:
        in_channels: of the overview.
        scales: S.

    Attributes:
        margin: cells that the input must reach beyond the output on every side; the receptive field is
            `2 margin + 1` cells.

    Source: arXiv 2007.15124, section 2.1: three 3x3 convolutions with 8S hidden channels, batch normalisation and
    ReLU6. The paper pads with zeros; the margin replaces that.
    """

    margin = 3

    def __init__(self, in_channels: int, scales: int) -> None:
        super().__init__()
        hidden = 8 * scales
        layers: list[nn.Module] = []
        for channels in (in_channels, hidden):
            layers += [nn.Conv2d(channels, hidden, 3, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, scales, 3))

    def forward(self, overview: Tensor) -> Tensor:
        """Scale logits (B, S, h, w) from an overview with its margin, (B, C, h + 2 margin, w + 2 margin)."""
        logits: Tensor = self.layers(overview)
        return logits


class ScaleEmbedding(nn.Module):
    """A gain and an offset for every scale and channel of the network's input; at first they change nothing.

    So any network can be told, its pretrained weights as they are. A mixed patch gets the mean of its scales.

    Args:
        scales: number S of scales.
        channels: of the patches, C.

    Source: feature-wise linear modulation (Perez et al. 2018), of the input.
    """

    def __init__(self, scales: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(scales, channels))
        self.offset = nn.Parameter(torch.zeros(scales, channels))

    def forward(self, patches: Tensor, scale_weights: Tensor) -> Tensor:
        """Modulated patches (N, C, P, P), by their scale weights (N, S)."""
        weights = scale_weights.to(self.gain.dtype)
        gain, offset = (weights @ self.gain)[..., None, None], (weights @ self.offset)[..., None, None]
        told: Tensor = patches * (1 + gain) + offset
        return told
