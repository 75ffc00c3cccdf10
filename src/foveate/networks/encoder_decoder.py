"""`EncoderDecoder`: a head on the last stage of an encoder, and where asked an auxiliary one on the stage before."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from foveate.networks.deep_supervision import DeepSupervision


class EncoderDecoder(nn.Module):
    """(N, C_in, P, P) -> logits (N, classes, P, P).

    Args:
        encoder: module (N, C_in, P, P) -> list of features, finest first.
        head: module from the last features (N, C, h, w) to logits (N, classes, h, w).
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, image: Tensor) -> Tensor | DeepSupervision:
        """Logits over the whole input, at its size."""
        return _resized(self.head(self.encoder(image)[-1]), image)


class DeeplySupervised(EncoderDecoder):
    """An `EncoderDecoder` that in train mode returns `DeepSupervision`, in eval mode logits only.

    Args:
        encoder: see `EncoderDecoder`; of at least two stages.
        head: see `EncoderDecoder`.
        auxiliary: the same for the features of the stage before the last.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, auxiliary: nn.Module) -> None:
        super().__init__(encoder, head)
        self.auxiliary = auxiliary

    def forward(self, image: Tensor) -> Tensor | DeepSupervision:
        """Logits over the whole input, at its size; in train mode with those of the auxiliary head."""
        if not self.training:
            return super().forward(image)
        *_, earlier, last = self.encoder(image)
        return DeepSupervision(_resized(self.head(last), image), _resized(self.auxiliary(earlier), image))


def _resized(logits: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
