"""Processes beside one another: locks, stopping well on a signal, and ending with the process that one works for."""

import errno
import json
import os
import signal
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from foveate.errors import Note, OutputInUseError, OutputWriteError

_T = TypeVar("_T")
# What file systems without locks answer. There a second file that names its process is the lock.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; the file is made, says who holds it since when, and is removed at the end.

    It may be removed while it is locked: whoever comes then makes a new one.

    Raises:
        OutputInUseError: when another process holds it, naming that.
        FileNotFoundError: when its folder is not there.
    """
    lock = _taken(path)
    if lock is None:
        raise OutputInUseError(
            f"{path.parent} is in use by {_holder(path)}; wait until it ends, stop it, or choose another --out"
        )
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        path.write_text(json.dumps(owner), encoding="utf-8")
        mine = path.stat()
        yield
    finally:
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), mine):
                path.unlink()
        lock.release()


@contextmanager
def locked_folder(path: Path, name: str) -> Iterator[None]:
    """Make a folder and hold a lock in it; a folder that was made here and holds nothing at the end is removed.

    Args:
        path: of the folder.
        name: of the lock.

    Raises:
        OutputInUseError: when another process holds it, naming that.
        OutputWriteError: when the folder cannot be made, or not be written.
    """
    with ExitStack() as stack:
        try:
            if not path.exists():
                stack.callback(_remove_empty, path)
            while True:
                path.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # removed in between, by a process that has just ended
                    stack.enter_context(locked(path / name))
                    break
        except OutputInUseError:
            raise
        except OSError as error:
            raise OutputWriteError(f"cannot write to {path}: {error}; choose another --out") from error
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds something
        folder.rmdir()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of this file; where it cannot be known, whether it may."""
    if not path.exists():
        return False
    lock = _taken(path)
    if lock is not None:
        lock.release()
    return lock is None


def _taken(path: Path) -> BaseFileLock | None:
    """The lock of a file, taken without waiting; None where another holds it."""
    try:
        return _acquired(FileLock(path, thread_local=False, fallback_to_soft=False))
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
    return _acquired(SoftFileLock(path.with_name(f"{path.name}.soft"), thread_local=False))


def _acquired(lock: BaseFileLock) -> BaseFileLock | None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _holder(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, LookupError, TypeError):  # it has only just taken it
        return "another process"


def in_order(futures: Iterable[Future[_T]], ahead: int) -> Iterator[_T]:
    """Results in order, each future asked for when at most so many wait before it."""
    waiting: deque[Future[_T]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


SIGNALS = (signal.SIGINT, signal.SIGTERM)
# In the environment of a process that is to end with the one of this number, which started it.
LEADER = "FOVEATE_LEADER"
_LOOK = 1.0  # seconds between looks at the leader
_GRACE = 6.0  # seconds to end well once it is gone


class StoppedAtOnce(BaseException):
    """Raised by a signal before work begins. No Exception: code that loads and builds would take it for its own."""


class Stop:
    """Whether work should stop, and the signal that said so.

    Attributes:
        signal: None while nothing asked for a stop.
        at_once: a signal raises StoppedAtOnce wherever the program is, until this is called for the first time: work
            that has not begun has no block or step at hand, and may take long to begin.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.at_once = False

    def __call__(self) -> bool:
        """Whether work should stop after the block or step at hand."""
        self.at_once = False
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + (self.signal or signal.SIGTERM)


@contextmanager
def stopping(on_first: Callable[[], None], on_second: Callable[[], None] = lambda: None) -> Iterator[Stop]:
    """Within this context SIGINT and SIGTERM ask for a stop; a second one ends the process at once.

    Args:
        on_first: called when a stop is asked for, unless that is `at_once`.
        on_second: called before the process ends.
    """
    stop, owner = Stop(), os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() != owner:
            return  # a fork that reads for this process, which ends it
        if stop.signal is not None:
            on_second()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.signal = signal.Signals(number)
        if stop.at_once:
            raise StoppedAtOnce
        on_first()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_signals(tell: Callable[[str], None]) -> None:
    """Let SIGINT and SIGTERM end this process as an exception does: what is half-written is removed.

    The exit code is 130 or 143.

    Args:
        tell: told which of them it was.
    """
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() == owner:
            tell(f"ended by {signal.Signals(number).name}")
            raise SystemExit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in SIGNALS:
        signal.signal(number, handle)


def is_first_process() -> bool:
    """Whether this process is the one that writes files and speaks; True where there is only one.

    Of the variables that say so, torchrun sets RANK. A process that Lightning or SLURM started is the first one where
    none of the others says that it is not.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


def led_by_this() -> dict[str, str]:
    """What the environment of a process needs that is to end with this one, see `follow_leader`."""
    return {LEADER: str(os.getpid())}


def follow_leader(leader: int | None = None) -> None:
    """End this process within ten seconds of the end of the process that started it, however that ends.

    It gets SIGTERM, and SIGALRM where that does not end it: the kernel sends that, whatever holds the interpreter.

    Args:
        leader: number of that process, which this one helps: it has said what there is to note. When None, what
            `led_by_this` put into the environment; nothing without.
    """
    if leader is not None:
        warnings.simplefilter("ignore", Note)
    noted = int(os.environ.pop(LEADER, "0"))  # not for those that this process starts
    leader = noted if leader is None else leader
    if leader and (os.getppid() == leader or not _runs(leader)):
        Thread(target=_watch, args=(leader,), daemon=True, name="follows its leader").start()


def _watch(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(_LOOK)
    signal.setitimer(signal.ITIMER_REAL, _GRACE)
    os.kill(os.getpid(), signal.SIGTERM)


def _runs(process: int) -> bool:
    """Whether a process is at work; one that has ended, and that nobody has waited for yet, is not."""
    try:
        os.kill(process, 0)
        with suppress(OSError):  # a system without /proc
            return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
