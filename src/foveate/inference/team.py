"""A team: the processes that share the blocks of the images, the first of which leads. They meet in files only."""

import json
import os
import pickle
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from foveate.errors import OutputInUseError, WorkerError
from foveate.files import write_text
from foveate.processes import follow_leader, is_held, locked

LEFT_OUT = "left out"
_PATIENCE = 600.0  # seconds for the others to start
_TRIES = 5
_GRACE = 8.0  # seconds that a process has for its block when the one that leads is gone


class Board:
    """Words that the process that leads leaves for the others: a file, and one that it keeps locked while it lives.

    Args:
        path: the file; it needs to be on a disk that all of them see.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, path.with_name(f"{path.name}.lock")
        self._words: dict[str, str] = {}
        self._seen, self._since = False, time.monotonic()

    @contextmanager
    def led(self) -> Iterator[None]:
        """Lead within this context; what an earlier leader left is forgotten first.

        Raises:
            OutputInUseError: when another process leads.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        with ExitStack() as stack:
            for more in reversed(range(_TRIES)):
                try:
                    stack.enter_context(locked(self._lock))
                    break
                except OutputInUseError:  # or by one that has just looked whether somebody leads
                    if not more:
                        raise
                    time.sleep(0.1)
            stack.callback(self._path.unlink, missing_ok=True)
            self._write()
            yield

    def set(self, key: str, word: str) -> None:
        """Leave a word; only the process that leads does."""
        self._words[key] = word
        self._write()

    def get(self, key: str) -> str | None:
        """The word that was left last; None while there is none.

        Raises:
            WorkerError: when the process that leads is gone, or never came.
        """
        if not self.is_led():
            return None
        try:
            words: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return words.get(key)

    def is_led(self) -> bool:
        """Whether the process that leads is there; before it came, false for ten minutes at most.

        Raises:
            WorkerError: when it is gone, or never came.
        """
        if is_held(self._lock):
            self._seen = True
        elif self._seen:
            raise WorkerError("the first process has ended")
        elif time.monotonic() - self._since > _PATIENCE:
            raise WorkerError(f"the first process was not found: it never started at {self._path}")
        else:
            return False
        return True

    def _write(self) -> None:
        with suppress(FileNotFoundError):  # the folder was removed
            write_text(self._path, json.dumps(self._words), overwrite=True)


@dataclass(frozen=True, slots=True)
class Team:
    """One process's view of the team.

    Attributes:
        device: of this process.
        rank: of this process; 0 leads.
        size: number of processes.
        local: those of them on this computer.
        board: where the leader leaves a word for the others; None when alone.
        started: the processes of this computer that this one started.
        told: names of those whose death was told.
    """

    device: str = "cpu"
    rank: int = 0
    size: int = 1
    local: int = 1
    board: Board | None = None
    started: tuple[SpawnProcess, ...] = ()
    told: set[str] = field(default_factory=set)

    @property
    def leads(self) -> bool:
        """Whether this process opens the stores and writes the results."""
        return self.rank == 0

    def announce(self, image: int, word: str) -> None:
        """Leave a word about an image for the others: how it is worked on, or `LEFT_OUT`."""
        if self.board is not None:
            self.board.set(f"image {image}", word)

    def hears(self, image: int) -> str | None:
        """What the leader said last about an image; None while it said nothing.

        Raises:
            WorkerError: when the leader is gone.
        """
        return None if self.board is None else self.board.get(f"image {image}")

    def lost(self) -> list[str]:
        """A line for every process that this one started and that died since this was asked last."""
        new = [process for process in self.started if process.exitcode and process.name not in self.told]
        self.told.update(process.name for process in new)
        return [f"process {process.name} ended with exit code {process.exitcode}" for process in new]

    @contextmanager
    def ending_with_the_leader(self) -> Iterator[None]:
        """Within this context the process ends some seconds after the leader has, whatever it is at."""
        over = Event()
        if not self.leads and self.board is not None:
            Thread(target=_watch, args=(self.board, over), daemon=True, name="watch").start()
        try:
            yield
        finally:
            over.set()


def _watch(board: Board, over: Event) -> None:
    while not over.wait(1.0):
        try:
            board.is_led()
        except WorkerError:
            if not over.wait(_GRACE):
                os._exit(3)  # in the middle of a block, which nobody waits for


ALONE = Team()


@contextmanager
def launched_team(devices: Sequence[str], folder: Path) -> Iterator[Team | None]:
    """The team that torchrun, SLURM or another launcher that says so started; None without one.

    Args:
        devices: what its processes on this computer may use; they take turns.
        folder: of the results, which all of them see.
    """
    rank, size = _place("RANK", "SLURM_PROCID", 0), _place("WORLD_SIZE", "SLURM_NTASKS", 1)
    if size == 1:
        yield None
        return
    here, local = _place("LOCAL_RANK", "SLURM_LOCALID", 0), _place("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", 1)
    # Words of another launch, and of processes that torchrun has started anew since, must not be heard.
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID")
    launch = "-".join(os.environ[name] for name in names if name in os.environ) or "launch"
    board = Board(folder / f".foveate-{launch}.team")
    team = Team(devices[here % len(devices)], rank, size, local, board)
    if not team.leads:
        yield team
        return
    with board.led():
        yield team


def _place(name: str, of_slurm: str, otherwise: int) -> int:
    """A number that a launcher sets; SLURM's only where `srun` started the process for it."""
    text = os.environ.get(name) or os.environ.get(of_slurm) or ""
    return int(text) if text.isdigit() else otherwise


@contextmanager
def started_team(devices: Sequence[str], work: Callable[..., None], *arguments: object) -> Iterator[Team]:
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
    context, size = get_context("spawn"), len(devices)
    with TemporaryDirectory(prefix="foveate-") as folder:
        board = Board(Path(folder) / uuid.uuid4().hex)
        others = tuple(
            context.Process(
                target=_helper,
                args=(os.getpid(), pickle.dumps((Team(devices[rank], rank, size, size, board), work, arguments))),
                name=f"{rank} ({devices[rank]})",
                daemon=True,
            )
            for rank in range(1, size)
        )
        with board.led():
            try:
                with _without_interrupts():
                    for process in others:
                        process.start()
                yield Team(devices[0], 0, size, size, board, others)
                for process in others:
                    process.join(timeout=5)
            finally:
                for process in others:
                    if process.pid is not None:
                        process.terminate()
                        process.join(_GRACE)
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


def _helper(leader: int, rest: bytes) -> None:
    """What a started process does: it follows its leader before it loads what it is to do, which takes seconds."""
    follow_leader(leader)
    team, work, given = pickle.loads(rest)
    work(team, *given)
