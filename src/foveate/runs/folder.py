"""`RunFolder`: where the parts of a run lie, and how a trained segmenter is loaded from them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from foveate.checkpoint import check_same_config, load_segmenter_state
from foveate.config_base import with_overrides
from foveate.errors import CheckpointError, ConfigError, OutputExistsError
from foveate.files import write_text
from foveate.networks.config import NetworkConfig
from foveate.runs.config import RunConfig
from foveate.segmenter import FoveatedSegmenter, build_segmenter


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A trained segmenter and the configuration it was trained with.

    Attributes:
        config: with overrides applied.
        segmenter: on `device`, in eval mode.
        device: to run on.
    """

    config: RunConfig
    segmenter: FoveatedSegmenter
    device: torch.device


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of this name, "best" or "last"."""
        return self.path / "checkpoints" / f"{name}.ckpt"

    def evaluation(self, split: str) -> Path:
        """The results on a split."""
        return self.path / "evaluation" / f"{split}.json"

    def start(self, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
        """Make the folder and save the configuration; refuse to mix with an earlier run.

        Raises:
            OutputExistsError: when a run is there and neither `resume` nor `overwrite` is set.
        """
        if self.config_file.exists() and not resume:
            if not overwrite:
                raise OutputExistsError(
                    f"{self.path} holds a run already; pass --resume to continue it, --overwrite to start it anew, "
                    f"or choose another folder with --out"
                )
            self._clear()
        write_text(self.config_file, config.to_yaml(), overwrite=True)

    def _clear(self) -> None:
        for part in ("checkpoints", "tensorboard", "evaluation"):
            shutil.rmtree(self.path / part, ignore_errors=True)
        for name in ("metrics.csv", "config.yaml"):
            (self.path / name).unlink(missing_ok=True)

    def load(self, checkpoint: str, device: torch.device, overrides: list[str] | None = None) -> TrainedRun:
        """Load a trained segmenter.

        Args:
            checkpoint: "best" or "last"; a run without validation images has no best one, then the last is taken.
            device: where to put it.
            overrides: `key.subkey=value` changes to the configuration, such as `inference.overlap=0.5`.

        Raises:
            ConfigError: when this is no run, or an override is not allowed.
            CheckpointError: when the checkpoint is missing, damaged or of another configuration.
        """
        if checkpoint not in ("best", "last"):
            raise ConfigError(f"checkpoint {checkpoint!r}; allowed are best and last")
        saved = RunConfig.load(self.config_file)
        config = RunConfig.parse(with_overrides(saved.tree(), overrides or []), source=str(self.config_file))
        path = self.checkpoint(checkpoint)
        if checkpoint == "best" and not path.exists():
            path = self.checkpoint("last")
        state = load_segmenter_state(path)
        check_same_config(state.config, config.tree())
        segmenter = _segmenter_without_weights(config)
        try:
            segmenter.load_state_dict(state.weights)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the configured network: {error}") from None
        return TrainedRun(config, segmenter.eval().to(device), device)


def load_run(
    path: Path | str,
    *,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    overrides: list[str] | None = None,
) -> TrainedRun:
    """Load a trained run from its folder.

    Args:
        path: the folder that `foveate train` made.
        checkpoint: "best" or "last".
        device: where to put the segmenter.
        overrides: `key.subkey=value` changes to the configuration, such as `inference.overlap=0.5`.

    Raises:
        ConfigError, CheckpointError: see `RunFolder.load`.
    """
    return RunFolder(Path(path)).load(checkpoint, torch.device(device), overrides)


def _segmenter_without_weights(config: RunConfig) -> FoveatedSegmenter:
    """The segmenter with random weights: a checkpoint brings its own, nothing is downloaded."""
    network = NetworkConfig.parse({**config.network.tree(), "weights": None})
    return build_segmenter(
        config.foveation, network, classes=len(config.data.classes), in_channels=config.data.in_channels
    )
