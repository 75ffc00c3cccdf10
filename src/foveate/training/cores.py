"""Sharing the processor between the network's kernels and the reading processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cores_left_by(workers: int) -> Iterator[None]:
    """Within the block torch's kernels use no core that a reading process needs; at least one is left.

    A kernel on n threads waits for the slowest of them, which is the one that shares its core.
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(before, max(1, cores - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
