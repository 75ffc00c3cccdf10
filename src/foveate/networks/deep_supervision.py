"""What networks return: logits alone, logits inside something, or with a second prediction that only helps to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


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
