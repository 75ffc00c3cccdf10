"""The processes of a training: one a device, each with its share of every step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies.launchers import subprocess_script

from foveate.devices import devices_of
from foveate.errors import ConfigError, WorkerError
from foveate.processes import LEADER, SIGNALS, StoppedAtOnce, follow_leader, led_by_this

# Lightning's own observer kills this process, without a word, even where it is about to end well.
_OBSERVER = "_launch_process_observer"
_MOMENT = 5.0  # seconds in which a process ends by itself once one that it started has ended
# In the order "auto" prefers them. Any number of processes may share a CPU.
_DEVICES_FOUND: dict[str, Callable[[], int]] = {
    "gpu": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
    "cpu": lambda: 1,
}


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes train, and on which kind of device.

    Attributes:
        per_node: processes of each computer, one a device.
        nodes: number of computers.
        accelerator: kind of device: gpu, mps or cpu.
        numbers: of the GPUs of each computer; None for the first ones.
    """

    per_node: int
    nodes: int
    accelerator: str
    numbers: tuple[int, ...] | None = None

    @classmethod
    def of(cls, devices: int | str = 1, nodes: int = 1, accelerator: str = "auto") -> Processes:
        """The processes that options ask for.

        Args:
            devices: how many of each computer; or which, as `foveate.devices.devices_of` reads a text ("auto", "cpu:2",
                "0,2", "0-3") where no kind is asked for.
            nodes: number of computers.
            accelerator: kind of device, or "auto" for the best there is.

        Raises:
            ConfigError: when an option is not allowed, this computer has not so many devices, or torchrun or SLURM
                started another number of processes.
        """
        if nodes < 1:
            raise ConfigError(f"nodes {nodes}; at least 1 is needed")
        numbers = None
        if accelerator == "auto" and isinstance(devices, str):
            places = devices_of(devices)
            kind, count = places[0].partition(":")[0], len(places)
            numbers = tuple(int(place.removeprefix("cuda:")) for place in places) if kind == "cuda" else None
            accelerator = "gpu" if kind == "cuda" else kind
        else:
            if accelerator == "auto":
                accelerator = next(kind for kind, found in _DEVICES_FOUND.items() if found())
            count = _device_count(devices, accelerator)
        processes = cls(count, nodes, accelerator, numbers)
        processes._check_started()
        return processes

    def __str__(self) -> str:
        """Where they train, for people."""
        if self.numbers:
            where = "GPU " + ", ".join(map(str, self.numbers))
        else:
            where = {"gpu": "GPU", "mps": "the GPU of this Mac"}.get(self.accelerator, self.accelerator)
            where = f"{self.per_node} processes on {where}" if self.per_node > 1 else where
        return f"{where} of each of {self.nodes} computers" if self.nodes > 1 else where

    @property
    def on_gpu(self) -> bool:
        """Whether they train on CUDA devices."""
        return self.accelerator == "gpu"

    @property
    def count(self) -> int:
        """Processes in all."""
        return self.per_node * self.nodes

    def check_share(self, images_per_step: int) -> None:
        """Refuse a step that cannot be shared out evenly.

        Raises:
            ConfigError: naming numbers of images that can.
        """
        if images_per_step % self.count:
            fitting = -(-images_per_step // self.count) * self.count
            raise ConfigError(
                f"training.images_per_step {images_per_step} cannot be divided evenly among {self.count} processes; "
                f"set it to a multiple of {self.count}, such as training.images_per_step={fitting} with a "
                f"training.locations_per_step that {fitting} divides, or use another number of devices"
            )

    def _check_started(self) -> None:
        started = _started_processes()
        if started not in (None, self.count):
            raise ConfigError(
                f"{started} processes were started by torchrun or SLURM, but {self.per_node} devices x {self.nodes} "
                f"nodes is {self.count}; pass --devices (per computer) and --nodes that match"
            )


class OwnHandlers(pl.Callback):
    """Keeps the program's handlers of signals.

    Lightning puts its own in front of them once training starts: those end it with exit code 0, as if it were done, and
    send to other processes what these do not wait for.
    """

    def __init__(self) -> None:
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put them back."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


@contextmanager
def ended_together(trainer: pl.Trainer) -> Iterator[None]:
    """Where training fails in the block, end the processes that this one started, which would wait for it.

    One of them that dies is named at once; they end with this one, however that ends.

    Raises:
        WorkerError: when it failed because one of them had ended.
    """
    follow_leader()
    os.environ.update(led_by_this())
    over = threading.Event()
    threading.Thread(target=_name_the_dead, args=(trainer, over), daemon=True).start()
    launchers = vars(subprocess_script)
    observer = launchers.get(_OBSERVER)  # private: another version may have none
    launchers[_OBSERVER] = lambda _: None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # what Lightning makes of it
            raise error.__context__ from None
        raise
    except (Exception, StoppedAtOnce) as error:
        started = _started_by(trainer)
        # What a backend raises where a connection breaks is a RuntimeError.
        lost = isinstance(error, RuntimeError) and _first_failed(started)
        for process in started:
            process.kill()
        if lost:
            raise WorkerError(
                f"training ended because {lost}; its output is above. Continue from the last checkpoint with --resume"
            ) from error
        raise
    finally:
        over.set()
        launchers[_OBSERVER] = observer
        os.environ.pop(LEADER, None)


def _started_by(trainer: pl.Trainer) -> list[Popen[bytes]]:
    return getattr(trainer.strategy.launcher, "procs", [])


def _name_the_dead(trainer: pl.Trainer, over: threading.Event) -> None:
    """Say which process died, and end all where this one does not end by itself, as it waits for that one.

    One that a signal asked to stop is no failure: this process was asked as well, or should have been.
    """
    while not over.wait(0.5):
        started = _started_by(trainer)
        if not (lost := _failed(started)):
            continue
        codes = [process.returncode for process in started if process.returncode]
        asked = [128 + number for number in SIGNALS if {-number, 128 + number} & {*codes}]
        if not asked:
            os.write(2, f"{lost}, which ends the training; continue with --resume\n".encode())
        if not over.wait(_MOMENT):
            for process in started:
                process.kill()
            if asked:
                os.write(2, b"stopped with a process that was asked to stop; continue with --resume\n")
            os._exit(asked[0] if asked else 1)


def _first_failed(started: list[Popen[bytes]]) -> str | None:
    if started:
        time.sleep(1)  # the connections of a process close a moment before it is gone
    return _failed(started)


def _failed(started: list[Popen[bytes]]) -> str | None:
    for rank, process in enumerate(started, start=1):
        code = process.poll()
        if code:
            return f"process {rank} " + (f"was ended by signal {-code}" if code < 0 else f"failed with code {code}")
    return None


def _device_count(devices: int | str, accelerator: str) -> int:
    if accelerator not in _DEVICES_FOUND:
        raise ConfigError(f"accelerator {accelerator!r}; allowed are auto, {', '.join(_DEVICES_FOUND)}")
    found = _DEVICES_FOUND[accelerator]()
    try:
        count = max(1, found) if devices == "auto" else int(devices)
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(f"devices {devices!r}; allowed are auto and whole numbers from 1")
    if accelerator != "cpu" and count > found:
        raise ConfigError(
            f"{count} {accelerator} devices were requested and {found} found; pass fewer --devices or --accelerator cpu"
        )
    return count


def _started_processes() -> int | None:
    """How many processes torchrun or SLURM started; None where Lightning is to start them."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if SLURMEnvironment.detect() else None
