"""`network_cost`: the size of a network and its work per patch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.errors import NetworkError
from foveate.networks.build import build_network


class NetworkCost(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: number of parameters, those of an auxiliary head included.
        multiply_adds: of one patch in eval mode, in convolutions, linear layers and attention.
    """

    parameters: int
    multiply_adds: int


def network_cost(
    architecture: str, encoder: str, *, patch_size: int, classes: int, in_channels: int = 3, **options: Any
) -> NetworkCost:
    """Count parameters and multiply-adds of a network that is named; nothing is downloaded or computed.

    Args:
        architecture: see `build_network`.
        encoder: see `build_network`.
        patch_size: side of a patch.
        classes: number of output channels.
        in_channels: number of input channels.
        options: further keyword arguments of the architecture.

    Raises:
        NetworkError: when the network cannot be built, or takes no patch of this size.
    """
    names = {"classes": classes, "in_channels": in_channels, "weights": None, **options}
    network = _without_memory(architecture, encoder, names).eval()
    patch = torch.empty(1, in_channels, patch_size, patch_size, device="meta")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(patch)
    except Exception as error:  # what each network checks of its input differs
        raise NetworkError(
            f"{architecture} with encoder {encoder!r} takes no patch of {patch_size} px: {error}"
        ) from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkCost(parameters, counter.get_total_flops() // 2)


def _without_memory(architecture: str, encoder: str, names: dict[str, Any]) -> nn.Module:
    """The network on the meta device, where tensors have shapes and no values."""
    try:
        with torch.device("meta"):
            return build_network(architecture, encoder, **names)
    except NetworkError:  # some encoders compute while they are made
        return build_network(architecture, encoder, **names).to("meta")
