"""A team: the processes that share the blocks of the images, the first of which leads."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from typing import Any

from torch.distributed import PrefixStore, Store, TCPStore, rendezvous  # type: ignore[attr-defined]  # not in __all__

from foveate.errors import WorkerError
from foveate.signals import follow_leader

_PATIENCE = timedelta(minutes=10)  # for the others to start
_PATIENCE_AT_THE_END = 10.0  # seconds for their block at hand
LEFT_OUT = "left out"
_TEAMS = count()


@dataclass(frozen=True, slots=True)
class Team:
    """One process's view of the team.

    Attributes:
        device: of this process.
        rank: of this process; 0 leads.
        size: number of processes.
        local: those of them on this computer.
        messages: where the leader leaves a word for the others; None when alone.
        started: the processes of this computer that this one started.
        told: names of those whose death was told.
    """

    device: str = "cpu"
    rank: int = 0
    size: int = 1
    local: int = 1
    messages: Store | None = None
    started: tuple[SpawnProcess, ...] = ()
    told: set[str] = field(default_factory=set)

    @property
    def leads(self) -> bool:
        """Whether this process opens the stores and writes the results."""
        return self.rank == 0

    def announce(self, image: int, word: str) -> None:
        """Leave a word about an image for the others: how it is worked on, or `LEFT_OUT`."""
        if self.messages is not None:
            self.messages.set(f"image {image}", word)

    def hears(self, image: int) -> str | None:
        """What the leader said last about an image; None while it said nothing.

        Raises:
            WorkerError: when the leader is gone.
        """
        if self.messages is None:
            return None
        key = f"image {image}"
        try:
            return self.messages.get(key).decode() if self.messages.check([key]) else None
        except RuntimeError as error:
            raise WorkerError("the first process has ended") from error

    def lost(self) -> list[str]:
        """A line for every process that this one started and that died since this was asked last."""
        new = [process for process in self.started if process.exitcode and process.name not in self.told]
        self.told.update(process.name for process in new)
        return [f"process {process.name} ended with exit code {process.exitcode}" for process in new]


ALONE = Team()


def launched_team(devices: Sequence[str]) -> Team | None:
    """The team that torchrun, or another launcher that sets the same variables, started; None without one.

    Args:
        devices: what its processes on this computer may use; they take turns.

    Raises:
        WorkerError: when the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            f"the other processes cannot be reached: {error}; start all of them with torchrun, or set RANK, "
            f"WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each"
        ) from error
    place, local = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # Words of an earlier team, and of processes that torchrun has started anew since, must not be heard again.
    prefix = f"foveate predict {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} {next(_TEAMS)}"
    return Team(devices[place % len(devices)], rank, size, local, PrefixStore(prefix, store))


@contextmanager
def started_team(devices: Sequence[str], work: Callable[..., None], *arguments: Any) -> Iterator[Team]:
    """Start a process for every device but the first, which is this process's own.

    Processes are spawned: a script that calls this keeps its own work under `if __name__ == "__main__":`. When the
    context ends well they have a moment to end by themselves.

    Args:
        devices: of each process.
        work: a function of a module, called as `work(team, *arguments)` in each of the others.
        arguments: sent to them.
    """
    if len(devices) == 1:
        yield Team(devices[0])
        return
    messages = _store_on_loopback()
    context, size = get_context("spawn"), len(devices)
    others = tuple(
        context.Process(
            target=_helper,
            args=(os.getpid(), messages.port, devices[rank], rank, size, work, arguments),
            name=f"{rank} ({devices[rank]})",
            daemon=True,
        )
        for rank in range(1, size)
    )
    try:
        with _without_interrupts():
            for process in others:
                process.start()
        yield Team(devices[0], 0, size, size, messages, others)
        for process in others:
            process.join(timeout=5)
    finally:
        for process in others:
            if process.pid is not None:
                process.terminate()
                process.join(_PATIENCE_AT_THE_END)
                process.kill()
                process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile see Ctrl-C only once they are ready to stop well, see `stopping`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _store_on_loopback() -> TCPStore:
    """A store that only this computer reaches; by itself it would listen on all addresses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, handle = server.getsockname()[1], server.detach()
    return TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=_PATIENCE, master_listen_fd=handle
    )


def _helper(
    leader: int, port: int, device: str, rank: int, size: int, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    follow_leader(leader)
    messages = TCPStore("127.0.0.1", port, is_master=False, timeout=_PATIENCE)
    work(Team(device, rank, size, size, messages), *arguments)
