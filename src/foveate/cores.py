"""The processor's cores: how many there are, and who gets which of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(processes: int) -> None:
    """Give this process its share of the cores, where several run side by side."""
    torch.set_num_threads(min(torch.get_num_threads(), max(1, available_cores() // processes)))


@contextmanager
def cores_left_by(workers: int, processes: int = 1) -> Iterator[None]:
    """Within the block torch's kernels use no core that a reading or another training process needs; one is left.

    A kernel on n threads waits for the slowest of them, which is the one that shares its core.

    Args:
        workers: reading processes of each training process.
        processes: training processes that share this computer's cores.
    """
    before, given = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    threads = min(before, max(1, available_cores() // processes - workers))
    torch.set_num_threads(threads)
    # Where it is not set Lightning gives each training process all of its cores, its readers' too.
    os.environ["OMP_NUM_THREADS"] = given or str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if given is None:
            del os.environ["OMP_NUM_THREADS"]
