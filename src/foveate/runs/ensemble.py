"""An ensemble of runs: one fixed model for each field of view, trained alone, joined for inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foveate.errors import CheckpointError
from foveate.foveation.estimators import FixedScale
from foveate.networks.cascade import NetworkPerScale
from foveate.runs.config import RunConfig
from foveate.runs.methods import fixed_methods, with_method
from foveate.segmenter import FoveatedSegmenter


def member_configs(config: RunConfig) -> dict[str, RunConfig]:
    """The configuration of each member, by its method: that of the ensemble with one field of view fixed."""
    values = {**config.tree(), "members": None}
    return {
        method: RunConfig.parse(with_method(values, method))
        for method in fixed_methods(len(config.foveation.fields_of_view))
    }


def member_folders(config: RunConfig, folder: Path) -> list[Path]:
    """The run folder of each member, narrowest field of view first, of the ensemble in `folder`."""
    default = [Path("members") / method for method in fixed_methods(len(config.foveation.fields_of_view))]
    return [folder / member for member in config.members or default]


def join_members(config: RunConfig, members: Sequence[tuple[Path, RunConfig, FoveatedSegmenter]]) -> FoveatedSegmenter:
    """The segmenter that averages its members' predictions.

    Args:
        config: of the ensemble.
        members: folder, configuration and segmenter of each, narrowest field of view first.

    Raises:
        CheckpointError: when a member has other fields of view or classes, or is not the fixed model it should be.
    """
    for index, (folder, member, _) in enumerate(members):
        wanted = (config.foveation.scales, index, config.data.class_names)
        found = (member.foveation.scales, _fixed_index(member), member.data.class_names)
        for name, is_, should in zip(("fields of view", "fixed scale", "classes"), found, wanted, strict=True):
            if is_ != should:
                raise CheckpointError(f"{folder} cannot be member {index + 1}: {name}: {is_}, needed {should}")
    return FoveatedSegmenter(
        NetworkPerScale([segmenter.network for *_, segmenter in members]),
        config.foveation.scales,
        in_channels=config.data.in_channels,
        overview_downsample=config.foveation.overview_downsample,
        estimator=config.foveation.estimator,
        alignment=config.foveation.alignment,
        membership=config.data.membership,
    )


def _fixed_index(config: RunConfig) -> int | None:
    """Which field of view a model always uses; None where it chooses."""
    estimator = config.foveation.estimator
    return estimator.index if isinstance(estimator, FixedScale) else None
