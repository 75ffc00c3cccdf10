"""The configuration of a whole run: every section, from one YAML file and overrides."""

from __future__ import annotations

from pathlib import Path

import yaml

from foveate.config_base import Section, read_yaml, with_overrides
from foveate.data.config import DataConfig
from foveate.foveation.config import FoveationConfig
from foveate.inference.config import InferenceConfig
from foveate.networks.config import NetworkConfig
from foveate.training.config import TrainingConfig


class RunConfig(Section):
    """Everything that decides a run.

    Attributes:
        name: of the run; its default folder is `runs/<name>`.
        data: images, labels, classes, sampling, augmentation.
        foveation: patch size, fields of view, overview, policy, estimator.
        network: the segmentation network.
        training: optimiser, schedule, losses, steps.
        inference: blocks, overlap, blending.
    """

    name: str = "run"
    data: DataConfig
    foveation: FoveationConfig
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> RunConfig:
        """Read a configuration file and apply `key.subkey=value` overrides.

        Raises:
            ConfigError: when the file is missing or a key or value is not allowed.
        """
        return cls.parse(with_overrides(read_yaml(path), overrides or []), source=str(path))

    def to_yaml(self) -> str:
        """The resolved configuration; `load` reads it back to the same."""
        return yaml.safe_dump(self.tree(), sort_keys=False, allow_unicode=True)
