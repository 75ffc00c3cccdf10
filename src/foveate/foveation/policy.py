"""The policy network: from the overview to the logits of every scale at every cell."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field
from torch import Tensor, nn

from foveate.config_base import Section, Weights


class PolicyConfig(Section):
    """Shape of the policy network.

    Attributes:
        hidden: channels of every hidden layer; None means 8 per scale, as in the paper.
        dilations: one 3x3 convolution per entry. (1, 1, 1) is the paper's; longer is deeper, larger numbers look wider.
        normalisation: of the hidden layers. "batch" is the paper's; "none" suits a single location per step.
        encoder: one of timm's convolutional encoders, whose first stages, frozen, read the overview for the
            convolutions; None, as in the paper, leaves them the overview itself.
        weights: of that encoder: "imagenet", a checkpoint's path, or null (also "none"); see `network.weights`.
    """

    hidden: int | None = Field(default=None, ge=1)
    dilations: tuple[int, ...] = Field(default=(1, 1, 1), min_length=1)
    normalisation: Literal["batch", "none"] = "batch"
    encoder: str | None = None
    weights: Weights = "imagenet"


class OverviewFeatures(Protocol):
    """A module from an overview with `margin` more pixels on every side to `channels` features of each pixel."""

    channels: int
    margin: int

    def __call__(self, overview: Tensor) -> Tensor:
        """Features (B, channels, h, w) of an overview (B, C_in, h + 2 margin, w + 2 margin)."""


class PolicyNetwork(nn.Module):
    """Three (or more) 3x3 convolutions from the overview to scale logits.

    The convolutions are unpadded: the input carries a margin of real (at the image's border reflected) overview
    pixels instead of zeros. A decision then depends on its neighbourhood alone, so that training may see crops, and
    inference blocks, with exactly the values of a pass over the whole overview.

    Args:
        in_channels: of the overview.
        scales: S.
        config: its shape; the paper's by default.
        features: reads the overview for the convolutions, where there is one.

    Attributes:
        margin: cells that the input must reach beyond the output on every side; the receptive field is
            `2 margin + 1` cells.

    Source: arXiv 2007.15124, section 2.1: three 3x3 convolutions with 8S hidden channels, batch normalisation and
    ReLU6. The paper pads with zeros; the margin replaces that.
    """

    def __init__(
        self,
        in_channels: int,
        scales: int,
        config: PolicyConfig | None = None,
        features: OverviewFeatures | None = None,
    ) -> None:
        super().__init__()
        config = config or PolicyConfig()
        hidden = config.hidden or 8 * scales
        self.features = features
        widths = [features.channels if features else in_channels, *[hidden] * (len(config.dilations) - 1), scales]
        layers: list[nn.Module] = []
        for i, dilation in enumerate(config.dilations):
            last = i == len(config.dilations) - 1
            biased = last or config.normalisation == "none"
            layers.append(nn.Conv2d(widths[i], widths[i + 1], 3, dilation=dilation, bias=biased))
            if not last:
                layers += [nn.BatchNorm2d(hidden)] if config.normalisation == "batch" else []
                layers.append(nn.ReLU6())
        self.layers = nn.Sequential(*layers)
        self.margin = sum(config.dilations) + (features.margin if features else 0)

    def forward(self, overview: Tensor) -> Tensor:
        """Scale logits (B, S, h, w) from an overview with its margin, (B, C, h + 2 margin, w + 2 margin)."""
        seen = overview if self.features is None else self.features(overview)
        logits: Tensor = self.layers(seen)
        return logits
