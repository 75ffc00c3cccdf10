"""The processes of a training: one a device, what they sum up and normalise together, and that they end together."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen
from typing import Any, Self

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies.launchers import subprocess_script
from timm.layers import BatchNormAct2d

from foveate.devices import devices_of
from foveate.errors import ConfigError, WorkerError
from foveate.networks.build import SingleValueBatchNorm2d
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
    def of(cls, devices: int | str = 1, nodes: int = 1, accelerator: str = "auto") -> Self:
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
        started = os.environ.get("WORLD_SIZE") or (os.environ["SLURM_NTASKS"] if SLURMEnvironment.detect() else None)
        if started is not None and int(started) != processes.count:
            raise ConfigError(
                f"{started} processes were started by torchrun or SLURM, but {count} devices x {nodes} nodes is "
                f"{processes.count}; pass --devices (per computer) and --nodes that match"
            )
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
        broke = isinstance(error, RuntimeError) and started  # what a backend raises where a connection breaks
        if broke:
            time.sleep(1)  # the connections of a process close a moment before it is gone
        lost = broke and _failed(started)
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
    except (ValueError, TypeError):
        count = 0
    if count < 1:
        raise ConfigError(f"devices {devices!r}; allowed are auto and whole numbers from 1, or a text such as 'cpu:2'")
    if accelerator != "cpu" and count > found:
        raise ConfigError(
            f"{count} {accelerator} devices were requested and {found} found; pass fewer --devices or --accelerator cpu"
        )
    return count


class _Sum(torch.autograd.Function):
    """Torch's own differentiable sum is deprecated, and what is to replace it is private."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(gradient)


def process_count() -> int:
    """Number of processes that train together."""
    return (
        torch.distributed.get_world_size()
        if torch.distributed.is_available() and torch.distributed.is_initialized()
        else 1
    )


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor of any shape, differentiable: its gradient is the sum of the processes' gradients.

    Every process must call it, in the same order.
    """
    if process_count() == 1:
        return value
    total: torch.Tensor = _Sum.apply(value)
    return total


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor of any shape, without a gradient; every process must call it, in the same order."""
    return sum_over_processes(value.detach()) / process_count()


# What can be normalised over all processes instead; the last of them adds an activation, which is kept.
_KNOWN_FORWARDS = (
    torch.nn.modules.batchnorm._BatchNorm.forward,
    SingleValueBatchNorm2d.forward,
    BatchNormAct2d.forward,
)


class _SyncedBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Mixed into the class of a batch normalisation; normalises as it does, in training over all processes."""

    # What torch's own expects of its layers. It is no base, as DDP refuses such layers on a CPU.
    process_group: Any = None
    _check_non_zero_input_channels = torch.nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(batch)
        output = torch.nn.SyncBatchNorm.forward(self, batch) if batch.is_cuda else self._normalise(batch)  # type: ignore[arg-type]
        return self.act(self.drop(output)) if isinstance(self, BatchNormAct2d) else output

    def _normalise(self, batch: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(batch)  # type: ignore[no-untyped-call]
        axes = [axis for axis in range(batch.dim()) if axis != 1]
        # Accurate in float32 within a process; squares of means would lose digits there when they are joined.
        variance, mean = (part.double() for part in torch.var_mean(batch.float(), axes, correction=0))
        count = torch.full_like(mean, batch.numel() // batch.shape[1])
        total = sum_over_processes(torch.stack([count, count * mean, count * (variance + mean**2)]))
        mean = total[1] / total[0]
        variance = total[2] / total[0] - mean**2
        self._track(mean, variance, total[0, 0])
        scale = (variance + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = -mean * scale + (0 if self.bias is None else self.bias)
        shape = (1, -1) + (1,) * (batch.dim() - 2)
        output = torch.addcmul(shift.float().view(shape), batch.float(), scale.float().view(shape))
        return output.to(batch.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, values: torch.Tensor) -> None:
        """Note statistics (C,) of so many values a channel, the variance biased."""
        if not self.track_running_stats or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for kept, new in zip(
            (self.running_mean, self.running_var), (mean, variance * values / (values - 1)), strict=True
        ):
            if kept is not None:
                kept.lerp_(new.to(kept.dtype), share)


class BatchNormSync(pl.plugins.LayerSync):
    """Makes every batch normalisation of a module see the batch of all processes while it trains.

    Only the class of the layers changes, for as long as training lasts: parameters, hooks and names in the state stay.
    Lightning's own puts plain layers in their place, and leaves out the activation that timm's layers hold. A layer
    with another forward of its own is not changed.
    """

    def apply(self, model: torch.nn.Module) -> torch.nn.Module:
        """Synchronise the layers of a module, in place."""
        for layer in model.modules():
            if type(layer).forward in _KNOWN_FORWARDS:
                layer.__class__ = type(f"Synced{type(layer).__name__}", (_SyncedBatchNorm, type(layer)), {})
        return model

    def revert(self, model: torch.nn.Module) -> torch.nn.Module:
        """Give the layers of a module their own classes back."""
        for layer in model.modules():
            if isinstance(layer, _SyncedBatchNorm):
                layer.__class__ = type(layer).__bases__[1]
        return model
