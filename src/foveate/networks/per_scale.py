"""`NetworkPerScale`: one trained network for each scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NetworkPerScale(nn.Module):
    """Passes each patch through the network of its scale.

    Args:
        networks: S modules (N, C_in, P, P) -> (N, classes, P', P'), in the order of the scales.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, patches: Tensor, scale_weights: Tensor) -> Tensor:
        """Logits (N, classes, P', P') of patches (N, C_in, P, P) by their one-hot scale weights (N, S)."""
        scales = scale_weights.argmax(dim=-1)
        present = torch.unique(scales).tolist()
        if len(present) == 1:
            only: Tensor = self.networks[present[0]](patches)
            return only
        parts = {s: self.networks[s](patches[scales == s]) for s in present}
        first = next(iter(parts.values()))
        logits: Tensor = first.new_empty(len(patches), *first.shape[1:])
        for scale, part in parts.items():
            logits[scales == scale] = part
        return logits
