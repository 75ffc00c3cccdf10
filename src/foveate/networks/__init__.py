"""Networks: by name from segmentation_models_pytorch, timm and the original's menu, or a user's own by import path."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.networks.build import build_network, network_cost
    from foveate.networks.cascade import Context, NetworkPerScale
    from foveate.networks.config import NetworkConfig, check_code, own_network, trust_code
    from foveate.networks.parts import DeepSupervision, PolicyNetwork, ScaleEmbedding, cast_for, heads_of, load_tensors

__all__ = [
    "Context",
    "DeepSupervision",
    "NetworkConfig",
    "NetworkPerScale",
    "PolicyNetwork",
    "ScaleEmbedding",
    "build_network",
    "cast_for",
    "check_code",
    "heads_of",
    "load_tensors",
    "network_cost",
    "own_network",
    "trust_code",
]

__getattr__, __dir__ = door(__name__, __file__)
