"""Preferring kernels that give the same bits every time, without leaving the process changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_kernels(preferred: bool) -> Iterator[None]:
    """Within the block use deterministic kernels where torch has them, or whatever is fastest.

    Lightning's own option stays set for the rest of the process, where it would slow down inference.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if preferred:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add in any order
    torch.use_deterministic_algorithms(preferred, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
