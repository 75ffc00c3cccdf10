"""What networks return, and `EncoderDecoder`: a head on the last stage of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class DeepSupervision(NamedTuple):
    """The prediction, and a second one from an earlier stage that only helps to train; in eval mode there is none.

    Attributes:
        logits: (N, classes, P', P').
        auxiliary: (N, classes, P', P'), from the encoder's stage before the last.
    """

    logits: Tensor
    auxiliary: Tensor


def heads_of(output: object) -> list[object]:
    """The logits that a network returned, the main ones first.

    Taken are a tensor, `DeepSupervision`, an object with `.logits` (transformers), and a dictionary with "logits" or
    "out" (torchvision, whose "aux" helps to train). Anything else comes back as it is, for the caller to refuse.
    """
    if isinstance(output, DeepSupervision):
        return list(output)
    if isinstance(output, Mapping):
        main = next((output[key] for key in ("logits", "out") if output.get(key) is not None), output)
        return [main, *([output["aux"]] if isinstance(output.get("aux"), Tensor) else [])]
    return [getattr(output, "logits", output)]


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
