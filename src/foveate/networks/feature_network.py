"""A network whose outputs are features, and the head that classifies them once they are mixed."""

from __future__ import annotations

from torch import Tensor, nn


class FeatureNetwork(nn.Module):
    """Any segmentation network, built for D output channels instead of classes, with a head for each pixel.

    The head takes each pixel by itself, so it gives the same at whatever resolution, and in whatever block, the
    features are put together. It has a hidden layer: without one, classifying a mean of features would be a mean of
    logits.

    Args:
        network: (N, C_in, P, P) -> (N, features, P', P').
        features: number of features D.
        classes: number of classes.
    """

    def __init__(self, network: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.network = network
        layers = (nn.ReLU(), nn.Conv2d(features, features, 1), nn.ReLU(), nn.Conv2d(features, classes, 1))
        self.head = nn.Sequential(*layers)

    def forward(self, patches: Tensor) -> Tensor:
        """Features of patches (N, C_in, P, P): (N, D, P', P')."""
        features: Tensor = self.network(patches)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Logits (N, classes, h, w) of features (N, D, h, w)."""
        logits: Tensor = self.head(features)
        return logits
