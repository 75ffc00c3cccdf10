"""What a run cost: passes, seconds, memory; and memory given back."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.devices import give_back_freed_memory


class PeakMemory(NamedTuple):
    """The most memory that a process held since it started, MiB.

    Attributes:
        resident: in main memory.
        device: on the accelerator it used most; 0 without one.
    """

    resident: float
    device: float

    @classmethod
    def of_this_process(cls) -> PeakMemory:
        """So far."""
        # Asking for devices loads a library each time, which is not for every block where there is none.
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        devices = range(torch.cuda.device_count()) if used else ()
        return cls(peak_memory_mb(), max((torch.cuda.max_memory_allocated(d) / 2**20 for d in devices), default=0.0))


class CostMeter:
    """Counts passes and pixels from its creation on; the clock starts then too."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.passes = 0
        self.pixels = 0
        self._helpers = PeakMemory(0.0, 0.0)

    def add(self, passes: int, pixels: int, peak: PeakMemory | None = None) -> None:
        """Count a block; `peak` is of the process that worked on it where that was another one."""
        self.passes += passes
        self.pixels += pixels
        if peak is not None:
            self._helpers = PeakMemory(*map(max, self._helpers, peak))

    def tree(self) -> dict[str, float | int]:
        """Plain values for JSON; memory is that of the process that needed most."""
        seconds = time.perf_counter() - self._start
        megapixels = self.pixels / 1e6
        peak = PeakMemory(*map(max, self._helpers, PeakMemory.of_this_process()))
        tree: dict[str, float | int] = {
            "passes": self.passes,
            "megapixels": megapixels,
            "passes_per_megapixel": self.passes / megapixels if megapixels else 0.0,
            "seconds": seconds,
            "megapixels_per_second": megapixels / seconds,
            "peak_memory_mb": peak.resident,
        }
        if torch.cuda.is_available():
            tree["peak_device_memory_mb"] = peak.device
        return tree


def peak_memory_mb() -> float:
    """Peak resident memory of this process since it started, MiB."""
    try:
        # What the kernel counts for `getrusage` begins with the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return float(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError):  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


@torch.inference_mode()
def peak_bytes(work: Callable[[], Any]) -> int:
    """Most bytes that tensors made within a call occupy at a time; what kernels use inside is not seen."""
    with _Counting() as counting:
        result = work()
        del result
    return int(counting.most)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._alive: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given:
                storage = tensor.untyped_storage()
                self._alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return result


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class Trimmer:
    """Gives freed memory back once a process has grown far beyond what it held after its first blocks.

    What is given back comes again as new pages, which the system clears: after every block that took a sixth of the
    time of everything but the network.
    """

    def __init__(self) -> None:
        self._blocks, self._most = 0, 0

    def __call__(self) -> None:
        """Look, after a block."""
        self._blocks, resident = self._blocks + 1, _resident()
        if self._blocks <= _FIRST:
            self._most = max(self._most, resident)
        elif resident > self._most + _GROWN:
            give_back_freed_memory()


_FIRST, _GROWN = 4, 64 << 20


def _resident() -> int:
    """Bytes of main memory that this process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0
