"""Who works: executors with `submit`, as of `concurrent.futures`: processes of this computer, or a Dask cluster."""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any, TypeVar

from foveate.devices import share_cores
from foveate.errors import ConfigError, Note, WorkerError
from foveate.processes import follow_leader

Result = TypeVar("Result")

_GRACE = 5.0  # seconds for a process to end by itself
# Of this process, where it works for another: its number, and what was prepared.
_rank = 0
_prepared: dict[str, Any] = {}


def require_dask() -> None:
    """Refuse early where the extra is missing.

    Raises:
        ConfigError: naming it.
    """
    if find_spec("distributed") is None:
        raise ConfigError("--dask needs pip install 'foveate[dask]'; without it --devices starts processes here")


@contextmanager
def process_pool(processes: int) -> Iterator[Executor]:
    """New processes that share the cores, and end with this one, however it ends.

    Processes are spawned: a script that calls this keeps its own work under `if __name__ == "__main__":`.
    """
    context = get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, context, initializer=_begin, initargs=(context.Value("i", 0), processes, os.getpid())
    )
    try:
        yield pool
    finally:
        started = _processes_of(pool)  # `shutdown` would wait for what they are at
        pool.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.terminate()
            process.join(_GRACE)
            process.kill()


def shared_out(
    prepare: Callable[..., Any], work: Callable[[Any, Any], Result], pieces: Iterable[Any], processes: int, *given: Any
) -> Generator[Result]:
    """What `work(prepared, piece)` gives for every piece, as it comes, in new processes.

    Args:
        prepare: a function of a module, called as `prepare(rank, *given)` once in each process.
        work: another, called for each piece.
        pieces: sent to whichever process is free.
        processes: how many.
        given: for `prepare`; sent with every piece.

    Raises:
        WorkerError: when a process died.
        Exception: any that a process raised, with its traceback as a note.
    """
    with process_pool(processes) as pool:
        try:  # the pool may break while pieces are still sent
            for done in as_completed([pool.submit(_work, prepare, work, piece, given) for piece in pieces]):
                yield done.result()
        except BrokenProcessPool:
            raise WorkerError(_epitaph(_processes_of(pool))) from None


def _processes_of(pool: Executor) -> list[Any]:
    return list((getattr(pool, "_processes", None) or {}).values())


def _epitaph(processes: list[Any]) -> str:
    # `join` may return before the code is there: the pool's thread waits for its processes too, and only one of two
    # that wait is told.
    until = time.monotonic() + _GRACE
    while any(process.exitcode is None for process in processes) and time.monotonic() < until:
        time.sleep(0.01)
    codes = [process.exitcode for process in processes if process.exitcode]
    # The others were ended by the pool, with -15.
    code = next((code for code in codes if code != -signal.SIGTERM), codes[0] if codes else "unknown")
    advice = (
        'What it said is above. A script that starts processes keeps its work under `if __name__ == "__main__":`'
        if code == 1  # what goes wrong in its share is raised here; it could not begin
        else "If it was killed for lack of memory (-9), use fewer processes or a smaller inference.block_size"
    )
    return f"a worker process ended with exit code {code} before its share was done. {advice}"


def _work(
    prepare: Callable[..., Any], work: Callable[[Any, Any], Result], piece: Any, given: tuple[Any, ...]
) -> Result:
    key = f"{prepare.__module__}.{prepare.__qualname__}"
    try:
        if key not in _prepared:
            _prepared[key] = prepare(_rank, *given)
        return work(_prepared[key], piece)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        raise


def _begin(counter: Any, processes: int, parent: int) -> None:
    global _rank  # noqa: PLW0603 - of this process alone
    follow_leader(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    with counter.get_lock():
        _rank = counter.value
        counter.value += 1
    share_cores(processes)


@contextmanager
def dask_executor(address: str, workers: int | None = None) -> Iterator[Executor]:
    """The workers of a Dask cluster; what a lost one was at is done again by another.

    Args:
        address: of the scheduler, such as tcp://host:8786; or "local" for processes of this computer.
        workers: of "local"; one a core by default.

    Raises:
        ConfigError: when the extra `dask` is not installed, or nobody answers at the address.
    """
    require_dask()
    distributed: Any = import_module("distributed")  # an extra without types
    cluster = None
    try:
        if address == "local":
            here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
            cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, **here)
            client = distributed.Client(cluster)
            client.run(warnings.simplefilter, "ignore", Note)  # this process says what there is to note
        else:
            client = distributed.Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`"
        ) from None
    try:
        yield client.get_executor(pure=False, retries=3)
    finally:
        client.close()
        if cluster is not None:
            distributed.nanny.logger.setLevel("ERROR")  # warns of a worker that is slow to end, though all is done
            cluster.close()


def pieces_of(count: int, processes: int) -> list[range]:
    """Numbers below a count in runs of neighbours, several for each process, so that all end at about the same time."""
    length = max(1, count // (8 * processes))
    return [range(start, min(count, start + length)) for start in range(0, count, length)]


def results_of(futures: Iterable[Future[Result]], between: Callable[[], None]) -> Generator[Result]:
    """Results as they come; `between` is called while none does.

    Raises:
        WorkerError: when a piece was lost with its workers too often.
    """
    waiting = set(futures)
    try:
        while waiting:
            ended = {future for future in waiting if future.done()}
            for future in ended:
                yield _result(future)
            waiting -= ended
            between()
            if not ended:
                time.sleep(0.2)
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except Exception as error:
        if type(error).__name__ in ("KilledWorker", "CancelledError"):
            raise WorkerError(f"blocks were lost repeatedly because their workers died ({error})") from None
        raise
