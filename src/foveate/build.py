"""`build_segmenter`: the segmenter that a configuration describes."""

from __future__ import annotations

from foveate.foveation.config import FoveationConfig
from foveate.foveation.policy import PolicyNetwork
from foveate.networks.config import NetworkConfig
from foveate.networks.dense_features import dense_features
from foveate.networks.feature_network import FeatureNetwork
from foveate.networks.from_config import network_from
from foveate.segmenter import FoveatedSegmenter


def build_segmenter(
    foveation: FoveationConfig, network: NetworkConfig, *, classes: int, in_channels: int = 3
) -> FoveatedSegmenter:
    """The segmenter that two configuration sections describe.

    Raises:
        NetworkError: when the network, or the encoder that reads for the policy, cannot be built.
    """
    features = foveation.estimator.mixed_features
    built = network_from(network, classes=features or classes, in_channels=in_channels)
    return FoveatedSegmenter(
        built if features is None else FeatureNetwork(built, features, classes),
        foveation.scales,
        in_channels=in_channels,
        overview_downsample=foveation.overview_downsample,
        estimator=foveation.estimator,
        policy=_policy(foveation, in_channels),
        alignment=foveation.alignment,
        tell_scale=foveation.tell_scale,
    )


def _policy(foveation: FoveationConfig, in_channels: int) -> PolicyNetwork:
    config, scales = foveation.policy, len(foveation.scales)
    # Nothing is read for a policy that is never asked.
    if config.encoder is None or not foveation.estimator.learns:
        return PolicyNetwork(in_channels, scales, config)
    features = dense_features(config.encoder, in_channels=in_channels, weights=config.weights)
    return PolicyNetwork(in_channels, scales, config, features)
