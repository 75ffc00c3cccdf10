"""`EncoderDecoder`: a head on the last stage of an encoder, and where asked an auxiliary one on the stage before."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from foveate.networks.deep_supervision import DeepSupervision


class EncoderDecoder(nn.Module):
    """(N, C_in, P, P) -> logits (N, classes, P, P).

    Args:
        encoder: module (N, C_in, P, P) -> list of features, finest first.
        head: modules in turn from the last features (N, C, h, w) to logits (N, classes, h, w); the last classifies.
    """

    def __init__(self, encoder: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, image: Tensor) -> Tensor | DeepSupervision:
        """Logits over the whole input, at its size."""
        return self.decode(self.encoder(image), image)[1]

    def decode(self, features: list[Tensor], image: Tensor) -> tuple[Tensor, Tensor | DeepSupervision]:
        """What the head classifies (N, D, h, w), and what the network returns for the image."""
        seen: Tensor = self.head[:-1](features[-1])
        return seen, _resized(self.head[-1](seen), image)


class DeeplySupervised(EncoderDecoder):
    """An `EncoderDecoder` that in train mode returns `DeepSupervision`, in eval mode logits only.

    Args:
        encoder: see `EncoderDecoder`; of at least two stages.
        head: see `EncoderDecoder`.
        auxiliary: the same for the features of the stage before the last.
    """

    def __init__(self, encoder: nn.Module, head: nn.Sequential, auxiliary: nn.Module) -> None:
        super().__init__(encoder, head)
        self.auxiliary = auxiliary

    def decode(self, features: list[Tensor], image: Tensor) -> tuple[Tensor, Tensor | DeepSupervision]:
        """As `EncoderDecoder`; in train mode with the logits of the auxiliary head."""
        seen, logits = super().decode(features, image)
        if not self.training or not isinstance(logits, Tensor):
            return seen, logits
        return seen, DeepSupervision(logits, _resized(self.auxiliary(features[-2]), image))


def _resized(logits: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
