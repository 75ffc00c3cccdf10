"""Sharing the processor between the network's kernels and the reading processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from foveate.data.datamodule import available_cores


@contextmanager
def cores_left_by(workers: int) -> Iterator[None]:
    """Within the block torch's kernels use no core that a reading process needs; at least one is left.

    A kernel on n threads waits for the slowest of them, which is the one that shares its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, max(1, available_cores() - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
