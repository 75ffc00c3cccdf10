"""Reading checkpoints: tensors and plain values only, and the configuration they were made with."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foveate.config_base import ConfigTree
from foveate.errors import CheckpointError

# What decides whether weights fit and mean the same thing.
MODEL_SECTIONS = ("foveation", "network", "data.classes")
# What within them only inference asks for: another value goes with the same weights.
CHOSEN_AT_INFERENCE = ("foveation.estimator.top",)
SEGMENTER_PREFIX = "segmenter."

_ABSENT = object()


class SegmenterState(NamedTuple):
    """What inference needs of a checkpoint.

    Attributes:
        weights: the state dictionary of the `FoveatedSegmenter`.
        config: the resolved configuration of the run that made it.
    """

    weights: dict[str, Tensor]
    config: ConfigTree


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The whole state in a checkpoint, on the CPU.

    Nothing in the file is executed: it may hold tensors and plain values only.

    Raises:
        CheckpointError: when the file is missing, damaged, or was not written by a Foveate training run.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; a run keeps best.ckpt and last.ckpt in its folder checkpoints")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is no readable checkpoint ({reason}); it may be damaged: use another") from error
    missing = {"state_dict", "config"} - set(state) if isinstance(state, dict) else {"state_dict", "config"}
    if missing:
        raise CheckpointError(
            f"{path} was not written by a Foveate training run: it has no {' and no '.join(sorted(missing))}"
        )
    return dict(state)


def load_segmenter_state(path: Path) -> SegmenterState:
    """The weights of the segmenter in a checkpoint, and the configuration to build it from.

    Raises:
        CheckpointError: when the file is missing, damaged, or holds no segmenter.
    """
    state = load_checkpoint(path)
    weights = {
        key.removeprefix(SEGMENTER_PREFIX): value
        for key, value in state["state_dict"].items()
        if key.startswith(SEGMENTER_PREFIX)
    }
    if not weights:
        raise CheckpointError(f"{path} holds no weights of a segmenter; use a checkpoint of `foveate train`")
    return SegmenterState(weights, state["config"])


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
        for path, line in _differences(section, _at(saved, section), _at(current, section))
        if path not in free
    ]
    if lines:
        raise CheckpointError(
            "the checkpoint was made with another configuration: "
            + "; ".join(lines)
            + "; use the configuration saved with that run, or start a new run"
        )


def _at(tree: ConfigTree, path: str) -> Any:
    node: Any = tree
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _differences(path: str, saved: Any, current: Any) -> list[tuple[str, str]]:
    """Paths at which two trees differ, each with a sentence."""
    if isinstance(saved, dict) and isinstance(current, dict):
        keys = [*saved, *(key for key in current if key not in saved)]
        pairs = [(f"{path}.{key}", saved.get(key, _ABSENT), current.get(key, _ABSENT)) for key in keys]
        return [line for pair in pairs for line in _differences(*pair)]
    return [] if saved == current else [(path, f"{path} was {_shown(saved)}, is now {_shown(current)}")]


def _shown(value: Any) -> str:
    return "not given" if value is _ABSENT else repr(value)
