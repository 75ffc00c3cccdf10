"""A network of your own, used directly and by import path in a configuration: python own_network.py

With `foveate train`: foveate train CONFIG network=own_network:build --code examples
"""

from pathlib import Path

import torch
from torch import nn

import foveate
from foveate.build import build_segmenter
from foveate.foveation import FoveationConfig
from foveate.networks import NetworkConfig


class SmallNetwork(nn.Module):
    """(N, in_channels, P, P) -> logits (N, classes, P / 2, P / 2): the output may have any size."""

    def __init__(self, classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(patches))


def build(classes: int, in_channels: int, width: int = 16) -> nn.Module:
    """What a configuration names; everything but the first two comes from `network.options`."""
    return SmallNetwork(classes, in_channels, width)


def main() -> None:
    image = torch.rand(1, 3, 200, 300)

    scales = foveate.ScaleSet(patch_size=32, fields_of_view=(32, 64))
    direct = foveate.FoveatedSegmenter(build(classes=5, in_channels=3), scales)
    print("directly:", tuple(direct(image).shape))

    foveate.trust_code(Path(__file__).parent)  # a name in a configuration is not enough to run code
    network = NetworkConfig.parse({"factory": "own_network:build", "options": {"width": 8}})
    foveation = FoveationConfig.parse({"patch_size": 32, "fields_of_view": [32, 64]})
    configured = build_segmenter(foveation, network, classes=5, in_channels=3)
    print("by import path:", tuple(configured(image).shape), type(configured.network).__name__)


if __name__ == "__main__":
    main()
