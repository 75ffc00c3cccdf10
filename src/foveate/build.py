"""`build_segmenter`: the segmenter that a configuration describes."""

from __future__ import annotations

from foveate.cascade import CascadeSegmenter
from foveate.foveation.config import FoveationConfig
from foveate.foveation.estimators import Cascade
from foveate.membership import Exclusive, Membership
from foveate.networks.build import network_from
from foveate.networks.config import NetworkConfig
from foveate.segmenter import FoveatedSegmenter


def build_segmenter(
    foveation: FoveationConfig,
    network: NetworkConfig,
    *,
    classes: int,
    in_channels: int = 3,
    membership: Membership = Exclusive(),  # noqa: B008 - immutable
) -> FoveatedSegmenter:
    """The segmenter that two configuration sections describe.

    Raises:
        NetworkError: when the network cannot be built.
    """
    built = network_from(network, classes=classes, in_channels=in_channels)
    if isinstance(foveation.estimator, Cascade):
        return CascadeSegmenter(
            built,
            foveation.patch_size,
            foveation.fields_of_view[::-1],
            in_channels=in_channels,
            cascade=foveation.estimator,
            overview_downsample=foveation.overview_downsample,
            tell_scale=foveation.tell_scale,
            membership=membership,
        )
    return FoveatedSegmenter(
        built,
        foveation.scales,
        in_channels=in_channels,
        overview_downsample=foveation.overview_downsample,
        estimator=foveation.estimator,
        policy=foveation.policy,
        alignment=foveation.alignment,
        tell_scale=foveation.tell_scale,
        membership=membership,
    )
