"""`ScaleEmbedding`: tell one network which scale a patch has."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
