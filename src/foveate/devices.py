"""Which devices and cores do the work, who gets which of them, and what of their time and memory it takes."""

import ctypes
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import torch

from foveate.errors import ConfigError

GRAMMAR = "auto (every GPU; else one process), cpu, cpu:N for N processes, or GPUs by number: 0, 0,2, 0-3"


def devices_of(text: str) -> list[str]:
    """The device of each process.

    Args:
        text: "auto" (every CUDA device, else one process on what there is), "cpu", "cpu:N" (N processes on the
            processor), CUDA devices by number as in "0", "0,2" and "0-3", "cuda" (all) or "cuda:0,1", or "mps".

    Raises:
        ConfigError: for anything else, and when there is no such device.
    """
    text = text.strip()
    if text == "auto":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or [best_device()]
    if match := re.fullmatch(r"cpu(?::([1-9]\d*))?", text):
        return ["cpu"] * int(match[1] or 1)
    if text == "mps" and torch.backends.mps.is_available():
        return ["mps"]
    if text == "cuda":
        return _cuda(list(range(max(1, torch.cuda.device_count()))), text)
    plain = text.replace("cuda:", "")
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", plain):
        raise ConfigError(f"devices {text!r}; allowed are {GRAMMAR}")
    ranges = [part.partition("-") for part in plain.split(",")]
    return _cuda([i for first, _, last in ranges for i in range(int(first), int(last or first) + 1)], text)


def device_named(text: str) -> torch.device:
    """The one device of this name, in the grammar of `devices_of`; "auto" and "cuda" take the first GPU.

    Raises:
        ConfigError: when there is no such device, or the text names several.
    """
    if text in ("auto", "cuda"):
        return torch.device(devices_of(text)[0])
    places = devices_of(text)
    if len(places) > 1:
        raise ConfigError(f"device {text!r} names {len(places)} places to work at; give one, such as auto or cpu")
    return torch.device(places[0])


def _cuda(numbers: list[int], text: str) -> list[str]:
    found = torch.cuda.device_count()
    if not numbers or max(numbers) >= found or len(set(numbers)) < len(numbers):
        there = "no CUDA device was found" if not found else f"{found} CUDA devices were found, each to be named once"
        raise ConfigError(f"devices {text!r}, and {there}; allowed are {GRAMMAR}")
    return [f"cuda:{number}" for number in numbers]


def best_device() -> str:
    """The accelerator of this computer, else the processor."""
    # `current_accelerator` alone says what torch was built for, and asks what is there only since torch 2.7.
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def device_of(rank: int, device: str) -> str:
    """The device of one of several processes.

    Args:
        rank: of the process.
        device: one for all of them; several, joined by commas, in turns; "cuda" for all CUDA devices in turns.
    """
    if device == "cuda":
        return f"cuda:{rank % torch.cuda.device_count()}"
    each = device.split(",")
    return each[rank % len(each)]


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(processes: int) -> None:
    """Give this process its share of the cores, where several run side by side."""
    torch.set_num_threads(min(torch.get_num_threads(), max(1, available_cores() // processes)))


@contextmanager
def kernels_divided_by(count: int) -> Iterator[None]:
    """Within the block each of so many threads that call torch's kernels has its share of their threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def cores_left_by(workers: int, processes: int = 1) -> Iterator[None]:
    """Within the block torch's kernels use no core that a reading or another training process needs; one is left.

    A kernel on n threads waits for the slowest of them, which is the one that shares its core. With one or two cores
    the kernels use them all: a reader needs a twentieth of a core there, and two threads train 1.4 times as fast as one
    thread beside a core for the reader.

    Args:
        workers: reading processes of each training process.
        processes: training processes that share this computer's cores.
    """
    before, given = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    cores = available_cores() // processes
    threads = min(before, max(1, cores if cores <= 2 else cores - workers))
    torch.set_num_threads(threads)
    # Where it is not set Lightning gives each training process all of its cores, its readers' too.
    os.environ["OMP_NUM_THREADS"] = given or str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if given is None:
            del os.environ["OMP_NUM_THREADS"]


def give_back_freed_memory() -> None:
    """Return the free pages between what is in use, where the C library can (glibc); elsewhere nothing happens.

    The allocator keeps what is freed for later, and what it keeps is in pieces: over thousands of blocks, each with
    arrays of other sizes, the pieces that fit nothing add up.
    """
    if _trim is not None:
        _trim(0)


def reuse_freed_memory() -> None:
    """Keep what is freed for the next that needs it, up to 32 MiB in a piece, where the C library can (glibc).

    By default such pieces go back to the system at once, and come again as pages that it clears first: for arrays of a
    batch that took longer than what was computed in them.
    """
    if _mallopt is not None:
        _mallopt(_MMAP_THRESHOLD, 32 << 20)  # its most
        _mallopt(_TRIM_THRESHOLD, 512 << 20)


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of <malloc.h>
_trim, _mallopt = (
    getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None for name in ("malloc_trim", "mallopt")
)


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


class PeakMemory(NamedTuple):
    """The most memory that a process held since it started, MiB."""

    resident: float  # in main memory
    device: float  # on the accelerator it used most; 0 without one

    @classmethod
    def of_this_process(cls) -> Self:
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


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device; the copy to a GPU is made beside what comes next, from memory that it can read itself."""
    if values.device.type == "cpu" and device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
