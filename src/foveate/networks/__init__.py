"""Networks: by name from segmentation_models_pytorch, timm and the original's menu, or a user's own by import path."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.networks.build import build_network, network_cost
    from foveate.networks.config import NetworkConfig, trust_code
    from foveate.networks.parts import DeepSupervision

__all__ = ["DeepSupervision", "NetworkConfig", "build_network", "network_cost", "trust_code"]

__getattr__, __dir__ = door(__name__, __file__)
