"""`network_from`: the network that a configuration section describes."""

from __future__ import annotations

from torch import nn

from foveate.networks.build import build_network
from foveate.networks.config import NetworkConfig
from foveate.networks.own import own_network


def network_from(config: NetworkConfig, *, classes: int, in_channels: int) -> nn.Module:
    """The configured network (N, in_channels, P, P) -> (N, classes, P', P').

    Raises:
        NetworkError: when it cannot be built, see `build_network` and `own_network`.
    """
    if config.factory is not None:
        return own_network(config.factory, classes=classes, in_channels=in_channels, options=config.options)
    return build_network(
        config.architecture,
        config.encoder,
        classes=classes,
        in_channels=in_channels,
        weights=config.weights,
        **config.options,
    )
