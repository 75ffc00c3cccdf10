"""The optimiser of a segmenter: one group of parameters for the network, one for the policy."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from foveate.segmenter import FoveatedSegmenter
from foveate.training.config import TrainingConfig


def build_optimizer(segmenter: FoveatedSegmenter, config: TrainingConfig) -> Optimizer:
    """The optimiser with the groups "network" and, where the estimator learns, "policy"."""
    groups = parameter_groups(segmenter, config)
    # One kernel for all tensors: on a CPU a tenth of a small network's step went into one call per tensor. It
    # also skips a step that is not finite without asking the device: see `SegmentationTask`.
    devices = {p.device.type for group in groups for p in group["params"]}
    fused = devices == {"cuda"} or (devices <= {"cpu", "cuda"} and config.precision == "32")
    if config.optimizer == "sgd":
        # On a CPU as it was: the fused rule rounds differently.
        on_gpu, decay = devices == {"cuda"}, config.weight_decay
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=decay, fused=on_gpu)
    rule = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return rule(groups, weight_decay=config.weight_decay, fused=fused)


def parameter_groups(segmenter: FoveatedSegmenter, config: TrainingConfig) -> list[dict[str, Any]]:
    """Trainable parameters with their names and learning rates; a group without any is left out."""
    told = [] if segmenter.scale_embedding is None else list(segmenter.scale_embedding.parameters())
    parts = {
        "network": ([*segmenter.network.parameters(), *told], config.learning_rate),
        "policy": (segmenter.policy.parameters(), config.policy_learning_rate or config.learning_rate),
    }
    groups = [
        {"name": name, "params": [p for p in parameters if p.requires_grad], "lr": rate}
        for name, (parameters, rate) in parts.items()
    ]
    return [group for group in groups if group["params"]]
