"""Several processes that share numbered work, and hand what they find to the one that started them."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, TypeVar, cast

from foveate.errors import WorkerError
from foveate.signals import follow_leader

Result = TypeVar("Result")


class _Message(NamedTuple):
    """What a process sends: a result, the end of its share, or why it failed."""

    value: Any = None
    last: bool = False
    error: Exception | None = None


class Share:
    """What one process is told about its part.

    Numbers go to whoever is free, so that the processes end together however unequal the pieces are.

    Attributes:
        rank: of the process, from 0.
    """

    def __init__(self, rank: int, counter: Any) -> None:
        self.rank = rank
        self._counter = counter

    def numbers(self, total: int) -> Iterator[int]:
        """This process's numbers out of 0 to `total - 1`, ascending; every number goes to exactly one process."""
        while (number := self._next()) < total:
            yield number

    def _next(self) -> int:
        with self._counter.get_lock():
            number: int = self._counter.value
            self._counter.value += 1
        return number


def from_processes(work: Callable[..., Iterator[Result]], count: int, *arguments: Any) -> Generator[Result]:
    """What `work(share, *arguments)` yields in each of `count` new processes, as it comes.

    Processes are spawned: a script that calls this keeps its own work under `if __name__ == "__main__":`. They are
    ended when the iterator is, whatever the reason.

    Args:
        work: a function of a module, so that its name can be sent.
        count: of processes.
        arguments: for `work`; sent to every process, as are its results back.

    Raises:
        WorkerError: when a process died.
        Exception: any that `work` raised.
    """
    context = get_context("spawn")
    counter = context.Value("q", 0)
    with ExitStack() as stack:
        running: dict[Connection, SpawnProcess] = {}
        for rank in range(count):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_run, args=(sender, work, Share(rank, counter), arguments, os.getpid()), daemon=True
            )
            stack.enter_context(_started(process))
            sender.close()  # the child's copy is then the only one: its death is the pipe's end
            running[receiver] = process
        yield from _received(running)


@contextmanager
def _started(process: SpawnProcess) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _received(running: dict[Connection, SpawnProcess]) -> Iterator[Any]:
    while running:
        for receiver in cast("list[Connection]", wait(list(running))):
            try:
                message: _Message = receiver.recv()
            except (EOFError, OSError):  # its end, or the end of it in the middle of a message
                raise WorkerError(_epitaph(running[receiver])) from None
            if message.error is not None:
                raise message.error
            if message.last:
                running.pop(receiver).join()
            else:
                yield message.value


def _epitaph(process: SpawnProcess) -> str:
    process.join()
    return (
        f"a worker process ended with exit code {process.exitcode} before its share was done; if it was killed for "
        "memory (-9), use fewer processes or a smaller inference.block_size"
    )


def _run(
    sender: Connection, work: Callable[..., Iterator[Any]], share: Share, arguments: tuple[Any, ...], leader: int
) -> None:
    follow_leader(leader)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    try:
        for value in work(share, *arguments):
            sender.send(_Message(value))
        sender.send(_Message(last=True))
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        sender.send(_Message(error=error))
