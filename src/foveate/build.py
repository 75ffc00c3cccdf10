"""Segmenters from what describes them: a configuration, or a checkpoint of tensors and plain values only."""

import hashlib
import math
import os
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor, nn

from foveate import networks
from foveate.cascade import CascadeSegmenter
from foveate.config_base import ConfigTree, differences, value_at
from foveate.errors import CheckpointError, translated
from foveate.foveation import Cascade, FoveationConfig
from foveate.membership import Exclusive, Membership
from foveate.networks import NetworkConfig, load_tensors, own_network
from foveate.segmenter import FoveatedSegmenter

# What decides whether weights fit and mean the same thing.
MODEL_SECTIONS = ("foveation", "network", "data.classes")
# What within them only inference asks for: another value goes with the same weights.
CHOSEN_AT_INFERENCE = ("foveation.estimator.top",)
SEGMENTER_PREFIX = "segmenter."
_SEAL = b"foveate-sha256:"
_SEAL_BYTES = len(_SEAL) + 64


class SegmenterState(NamedTuple):
    """What inference needs of a checkpoint."""

    weights: dict[str, Tensor]  # the state dictionary of the `FoveatedSegmenter`
    config: ConfigTree  # the resolved configuration of the run that made it
    has_best: bool  # whether a validation had chosen a best checkpoint when this one was written


def seal(path: Path) -> None:
    """Append a checksum to a checkpoint, as the comment of the archive that it is; any version of torch reads it."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(_SEAL_BYTES.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + digest.encode())


def load_checkpoint(path: Path, keys: Collection[str] = ("state_dict", "config")) -> dict[str, Any]:
    """The whole state in a checkpoint, on the CPU.

    Nothing in the file is executed: it may hold tensors and plain values only. Its checksum is compared; checkpoints
    of earlier versions have none for the whole, but one for each tensor.

    Args:
        path: the file.
        keys: what it must hold.

    Raises:
        CheckpointError: when the file is missing, damaged, or was not written by a Foveate training run.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; a run keeps best.ckpt and last.ckpt in its folder checkpoints")
    with translated(CheckpointError, f"{path} is not a readable checkpoint", "it may be damaged: use another"):
        _check_content(path)
        state = load_tensors(path)
    missing = set(keys) - set(state) if isinstance(state, dict) else set(keys)
    if missing:
        raise CheckpointError(
            f"{path} was not written by a Foveate training run: it has no {' and no '.join(sorted(missing))}"
        )
    return dict(state)


def _check_content(path: Path) -> None:
    """Compare the checksums."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _SEAL_BYTES))
        end = file.read()
        if end.startswith(_SEAL):
            digest = hashlib.sha256()
            file.seek(0)
            left = path.stat().st_size - _SEAL_BYTES
            while left > 0 and (piece := file.read(min(left, 1 << 22))):
                digest.update(piece)
                left -= len(piece)
            if end.removeprefix(_SEAL) != digest.hexdigest().encode():
                raise ValueError("its checksum is wrong")
            return
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("it is compressed, which torch never does")
        wrong = archive.testzip()
    if wrong is not None:
        raise ValueError(f"the checksum of its part {wrong} is wrong")


def load_segmenter_state(path: Path) -> SegmenterState:
    """The weights of the segmenter in a checkpoint, and the configuration to build it from.

    Raises:
        CheckpointError: when the file is missing, damaged, or holds no segmenter.
    """
    state = load_checkpoint(path)
    weights = {
        key.removeprefix(SEGMENTER_PREFIX): value
        for key, value in (state["state_dict"].items() if isinstance(state["state_dict"], dict) else ())
        if key.startswith(SEGMENTER_PREFIX)
    }
    if not weights:
        raise CheckpointError(f"{path} holds no weights of a segmenter; use a checkpoint of `foveate train`")
    score = value_at(state, "callbacks.RunCheckpoints.best_miou")
    return SegmenterState(weights, state["config"], isinstance(score, float) and score > -math.inf)


def load_shared_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a run from the hub.

    Raises:
        CheckpointError: when the file cannot be read.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own, and those of files
        raise CheckpointError(f"{path} cannot be read ({error}); download it again") from None


def check_same_config(
    saved: ConfigTree, current: ConfigTree, sections: Sequence[str] = MODEL_SECTIONS, free: Collection[str] = ()
) -> None:
    """Refuse a checkpoint of another configuration.

    Args:
        saved: the configuration in the checkpoint.
        current: the configuration of now.
        sections: what must agree, as paths such as "network" or "data.classes"; absent on both sides agrees.
        free: paths within them that need not agree.

    Raises:
        CheckpointError: listing every key that differs, with its value then and now.
    """
    lines = [
        line
        for section in sections
        for path, line in differences(value_at(saved, section), value_at(current, section), section)
        if path not in free
    ]
    if lines:
        raise CheckpointError(
            "the checkpoint belongs to another configuration: "
            + "; ".join(lines)
            + "; use the configuration saved with that run, or start a new run"
        )


def network_from(config: NetworkConfig, *, classes: int, in_channels: int) -> nn.Module:
    """The configured network (N, in_channels, P, P) -> (N, classes, P', P').

    Raises:
        NetworkError: when it cannot be built, see `build_network` and `own_network`.
    """
    if config.factory is not None:
        return own_network(config.factory, classes=classes, in_channels=in_channels, options=config.options)
    return networks.build_network(
        config.architecture,
        config.encoder,
        classes=classes,
        in_channels=in_channels,
        weights=config.weights,
        **config.options,
    )


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
        alignment=foveation.alignment,
        tell_scale=foveation.tell_scale,
        membership=membership,
    )
