"""`Session`: what goes on around the prediction of one image, and which process works on which of its blocks."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from foveate.config_base import ConfigTree
from foveate.errors import OutputWriteError, StoppedError
from foveate.inference.executor import results_of
from foveate.inference.memory import MemoryBound
from foveate.inference.store import BlockStore
from foveate.inference.team import ALONE, LEFT_OUT, Team
from foveate.inference.worker import Worker
from foveate.processes import is_held, locked


class Claims:
    """The blocks of one process.

    A claim is a file that only one process can create. It names a file that its owner keeps locked: once the owner is
    dead, others may take over. Should two work on the same block after all, they write the same bytes.

    Args:
        store: whose blocks are shared.
    """

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._folder, self._workers = store.path / "claims", store.path / "workers"
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Within this context others leave this process's claims alone."""
        with locked(self._workers / self._name):
            yield

    def take(self, numbers: Iterable[int]) -> Iterator[int]:
        """Claim those of some numbers that are free, each when it is asked for."""
        return (number for number in numbers if self._claim(number) or self._take_over(number))

    def give_back(self, number: int) -> None:
        """Leave a block to others."""
        self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:08d}"

    def _claim(self, number: int) -> bool:
        try:
            with self._file(number).open("x") as file:
                file.write(self._name)
        except (FileExistsError, FileNotFoundError):  # claimed already; or the store is gone, as all is done
            return False
        except OSError as error:
            raise OutputWriteError(self._store.cannot_write(error)) from error
        return True

    def _take_over(self, number: int) -> bool:
        """Claim a block whose owner is dead. A claim without a name is of one that died while it claimed."""
        if self._store.has(number):
            return False
        try:
            owner = self._file(number).read_text()
        except FileNotFoundError:
            return False
        if owner == self._name or (owner and is_held(self._workers / owner)):
            return False
        self.give_back(number)
        return self._claim(number)


_WAIT = 0.1  # seconds between looks at what the others have finished


class Start(NamedTuple):
    """What is known about a prediction before it starts.

    Attributes:
        megapixels: of the image.
        memory: most that each process needs.
        block_size: side of the blocks, level-0 pixels.
        batch_size: patches at a time.
    """

    megapixels: float
    memory: MemoryBound
    block_size: int
    batch_size: int


# Gives the blocks of an image (its number, what was settled, theirs) away; what comes back is told.
Share: TypeAlias = Callable[[int, ConfigTree, Sequence[int]], list[Future[list[str]]]]


@dataclass(frozen=True, slots=True)
class Session:
    """How much memory the prediction of an image may take, who works on it, who is told, and who may stop it.

    Attributes:
        team: the processes that share it.
        number: of the image, the same in all of them.
        memory: most bytes for this process; blocks and batches become smaller than configured where that is needed.
        on_start: told what is known before the work starts.
        tell: told what the user should know.
        should_stop: asked after every block.
        share: gives blocks to others, who put them into the store; None to work on them here.
    """

    team: Team = ALONE
    number: int = 0
    memory: int | None = None
    on_start: Callable[[Start], None] = lambda _: None
    tell: Callable[[str], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False
    share: Share | None = None

    def check(self, store: BlockStore) -> None:
        """Stop if that was asked for.

        Raises:
            StoppedError: saying how much is done.
        """
        if self.should_stop():
            raise StoppedError(f"stopped with {len(store.finished())} of {store.total} blocks stored in {store.path}")

    def complete(self, worker: Worker, store: BlockStore, on_change: Callable[[], None]) -> None:
        """Work on blocks that nobody works on, until all are stored.

        Args:
            worker: of this process.
            store: of the image.
            on_change: called after every block of this process, and while it waits for others.

        Raises:
            StoppedError: when asked to stop, or the leader gave the image up.
            FoveateError: what the worker raises; its claims are given back.
        """
        if self.share is not None:
            self._complete_by_others(self.share, worker, store, on_change)
            return
        claims = Claims(store)
        with claims.alive():
            try:
                while missing := store.missing():
                    if self._works(worker, claims, missing, store, on_change):
                        continue
                    for line in self.team.lost():
                        self.tell(f"{line}; the others continue with its block")
                    time.sleep(_WAIT)
                    on_change()
                    self._check_all(store)
            finally:
                for number in worker.open_numbers:
                    claims.give_back(number)

    def _complete_by_others(
        self, share: Share, worker: Worker, store: BlockStore, on_change: Callable[[], None]
    ) -> None:
        def between() -> None:
            on_change()
            self.check(store)

        while missing := worker.in_order(store.missing(), 0.0):
            with closing(results_of(share(self.number, worker.settled, missing), between)) as found:
                for told in found:
                    for line in told:
                        self.tell(line)
        on_change()

    def _works(
        self, worker: Worker, claims: Claims, missing: list[int], store: BlockStore, on_change: Callable[[], None]
    ) -> bool:
        """Work on the free ones of some blocks; whether there was one."""
        free = claims.take(worker.in_order(missing, self.team.rank / self.team.size))
        first = next(free, None)
        if first is None:
            return False
        # Closed before anything else happens: then nobody reads the image any more.
        with closing(worker.run(chain([first], free))) as steps:
            for _ in steps:
                on_change()
                self._check_all(store)
        return True

    def _check_all(self, store: BlockStore) -> None:
        self.check(store)
        if not self.team.leads and self.team.hears(self.number) == LEFT_OUT:
            raise StoppedError("the first process gave up on this image")
