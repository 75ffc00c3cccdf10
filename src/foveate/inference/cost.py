"""What a run cost: passes, seconds, memory."""

from __future__ import annotations

import resource
import sys
import time

import torch


class CostMeter:
    """Counts passes and pixels from its creation on; the clock starts then too."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.passes = 0
        self.pixels = 0

    def add(self, passes: int, pixels: int) -> None:
        """Count a block."""
        self.passes += passes
        self.pixels += pixels

    def tree(self) -> dict[str, float | int]:
        """Plain values for JSON."""
        seconds = time.perf_counter() - self._start
        megapixels = self.pixels / 1e6
        tree: dict[str, float | int] = {
            "passes": self.passes,
            "megapixels": megapixels,
            "passes_per_megapixel": self.passes / megapixels if megapixels else 0.0,
            "seconds": seconds,
            "megapixels_per_second": megapixels / seconds,
            "peak_memory_mb": peak_memory_mb(),
        }
        if torch.cuda.is_available():
            tree["peak_device_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        return tree


def peak_memory_mb() -> float:
    """Peak resident memory of this process since it started, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
