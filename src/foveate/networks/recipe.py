"""`Recipe`: a network that is named, and not yet built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from foveate.errors import NetworkError
from foveate.networks.encoder_decoder import DeeplySupervised, EncoderDecoder
from foveate.networks.heads import c1_auxiliary, c1_head, ppm_auxiliary, ppm_head
from foveate.networks.hrnet import HRNetV2
from foveate.networks.menu import HEADS, EncoderChoice
from foveate.networks.names import nearest
from foveate.networks.u_net import AttentionGate, UNet

_UNTRAINED: Mapping[str, Callable[..., nn.Module]] = {
    "u_net": UNet,
    "attention_u_net": partial(UNet, gate=AttentionGate),
}
# Parameters that are no options: they follow from the rest of the recipe.
_GIVEN = {"self", "name", "encoder_name", "weights", "encoder_weights", "in_channels", "classes", "kwargs"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides a network but its weights.

    Attributes:
        architecture: one of `foveate.networks.menu.ARCHITECTURES`.
        encoder: that goes with it.
        classes: number of output channels.
        in_channels: number of input channels.
        options: further keyword arguments, see `build_network`.
    """

    architecture: str
    encoder: EncoderChoice
    classes: int
    in_channels: int
    options: Mapping[str, Any]

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network, its encoder with ImageNet weights or random ones.

        Raises:
            NetworkError: for an unknown option, when deep supervision finds no stage before the last, or when no
                ImageNet weights exist.
            Exception: whatever the libraries raise when options do not fit or weights cannot be downloaded.
        """
        self._check_options()
        if self.architecture in HEADS:
            return self._with_our_head(self._encoder(pretrained=pretrained))
        network: nn.Module = smp.create_model(
            self.architecture,
            self.encoder.library_name,
            encoder_weights=self._library_weights(pretrained),
            in_channels=self.in_channels,
            classes=self.classes,
            **{**self.encoder.options, **self.options},
        )
        return network

    def _check_options(self) -> None:
        # segmentation_models_pytorch drops what its own encoders do not know; timm and our own encoders refuse it.
        name = self.encoder.library_name
        if name not in smp.encoders.get_encoder_names():
            return
        known = set(signature(smp.encoders.get_encoder).parameters)
        if self.architecture not in HEADS:
            architecture = smp.MODEL_ARCHITECTURES_MAPPING[self.architecture]
            known = {"output_stride", *signature(architecture.__init__).parameters}
        for option in sorted(set(self.options) - known):
            allowed = sorted(known - _GIVEN)
            raise NetworkError(
                f"{self.architecture} with encoder {name!r} has no option {option!r}; {nearest(option, allowed)}"
            )

    def _encoder(self, *, pretrained: bool) -> nn.Module:
        name, options = self.encoder.library_name, {**self.encoder.options, **self.options}
        if name in _UNTRAINED:
            if pretrained:
                raise NetworkError(f"no ImageNet weights of {name} exist; set network.weights to none or to a file")
            return _UNTRAINED[name](self.in_channels, **options)
        if name == "hrnetv2":
            return HRNetV2(self.in_channels, pretrained=pretrained, **options)
        encoder: nn.Module = smp.encoders.get_encoder(
            name, in_channels=self.in_channels, weights=self._library_weights(pretrained), **options
        )
        return encoder

    def _library_weights(self, pretrained: bool) -> str | bool | None:
        if not pretrained:
            return None
        return True if self.encoder.library_name.startswith("tu-") else "imagenet"

    def _with_our_head(self, encoder: Any) -> nn.Module:
        kind, _, deep = self.architecture.partition("_")
        make_head, make_auxiliary = {"c1": (c1_head, c1_auxiliary), "ppm": (ppm_head, ppm_auxiliary)}[kind]
        *earlier, last = encoder.out_channels
        head = make_head(last, self.classes)
        if not deep:
            return EncoderDecoder(encoder, head)
        if len(earlier) < 2 or not earlier[-1]:  # the first is the input
            raise NetworkError(f"{self.architecture} needs a stage before the encoder's last; use {kind}")
        return DeeplySupervised(encoder, head, make_auxiliary(earlier[-1], last, self.classes))
