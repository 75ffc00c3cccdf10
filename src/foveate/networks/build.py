"""A network by name (`build_network`), and what it costs (`network_cost`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.errors import NetworkError
from foveate.networks.menu import HEADS, EncoderChoice, find_architecture, find_encoder, nearest
from foveate.networks.parts import EncoderDecoder, installed_weights, load_encoder_weights
from foveate.paper.networks import HRNetV2, UNet, auxiliary_head, head

_IMAGENET = "imagenet"


def build_network(
    architecture: str = "fpn",
    encoder: str = "tf_efficientnet_lite0",
    *,
    classes: int,
    in_channels: int = 3,
    weights: str | None = _IMAGENET,
    **options: Any,
) -> nn.Module:
    """Build a network (N, in_channels, P, P) -> (N, classes, P, P) that returns logits.

    Case is ignored in names, and `-` is read as `_`. Every network trains on batches of one too. With an architecture
    of deep supervision it returns `foveate.networks.parts.DeepSupervision` in train mode.

    Args:
        architecture: one of segmentation_models_pytorch, or of the original's decoders: c1, c1_deepsup, ppm,
            ppm_deepsup (and upernet, which is the library's).
        encoder: one of segmentation_models_pytorch or timm, or of the original's: mobilenetv2dilated,
            resnet18dilated, resnet50dilated, resnet101dilated, resnext101, hrnetv2, u_net, attention_u_net.
        classes: number of output channels.
        in_channels: number of input channels.
        weights: "imagenet" (downloaded, where the extra `demo` does not bring them), the path of a checkpoint of the
            encoder (.pth, .pt or .safetensors), or None.
        options: further keyword arguments of the architecture; of the encoder where the architecture is c1 or ppm.

    Raises:
        NetworkError: for an unknown name, names that do not go together, options that do not fit, or weights that
            cannot be had.
    """
    if classes < 1 or in_channels < 1:
        raise NetworkError(f"a network has 1 or more classes and in_channels; got {classes} and {in_channels}")
    architecture = find_architecture(architecture)
    recipe = Recipe(architecture, find_encoder(encoder, architecture), classes, in_channels, options)
    name = f"{architecture} with encoder {encoder!r}"
    if weights == _IMAGENET:
        weights = installed_weights(encoder) or weights  # nothing is downloaded that is there
    network = _built(recipe, name, pretrained=weights == _IMAGENET)
    if weights not in (None, _IMAGENET):
        load_encoder_weights(network.get_submodule("encoder"), weights)
    allow_single_values(network)
    return network


def _built(recipe: "Recipe", name: str, *, pretrained: bool) -> nn.Module:
    try:
        return recipe.build(pretrained=pretrained)
    except NetworkError:
        raise
    except Exception as error:  # smp and timm raise many kinds; what the user can do is the same
        if not pretrained:
            raise NetworkError(
                f"cannot build {name}: {error}; change network.options or choose another pair"
            ) from error
        _built(recipe, name, pretrained=False)  # raises where the options are the reason, not the weights
        raise NetworkError(
            f"cannot build {name}: its ImageNet weights could not be downloaded ({error}). Give a file with "
            f"network.weights=PATH (.pth, .pt or .safetensors), or start from random weights with network.weights=none"
        ) from error


_UNTRAINED: Mapping[str, Callable[..., nn.Module]] = {
    "u_net": UNet,
    "attention_u_net": partial(UNet, gated=True),
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
        *earlier, last = encoder.out_channels
        main = head(kind, last, self.classes)
        if not deep:
            return EncoderDecoder(encoder, main)
        if len(earlier) < 2 or not earlier[-1]:  # the first is the input
            raise NetworkError(f"{self.architecture} needs a stage before the encoder's last; use {kind}")
        return EncoderDecoder(encoder, main, auxiliary_head(kind, earlier[-1], last, self.classes))


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that, given one value per channel, normalises it by the running statistics.

    A batch of one after global pooling is such an input. It has no variance of its own, and torch refuses it in
    training. The running statistics are used, and not changed by it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training or input.numel() != input.shape[1] or self.running_mean is None:
            return super().forward(input)
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def allow_single_values(network: nn.Module) -> None:
    """Let every `BatchNorm2d` of a network train on a single value per channel, in place.

    Parameters, buffers and their names stay as they are. Subclasses of `BatchNorm2d` bring their own forward and are
    left alone.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # A new module in its place would need its parent; the class adds no state, so changing it is enough.
            module.__class__ = SingleValueBatchNorm2d


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
