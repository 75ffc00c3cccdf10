"""Stop on a signal, but not in the middle of a block."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether work should stop, and the signal that said so."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether work should stop after the block at hand."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)


@contextmanager
def stopping(on_first: Callable[[], None], on_second: Callable[[], None] = lambda: None) -> Iterator[Stop]:
    """Within this context SIGINT and SIGTERM ask for a stop; a second one ends the process at once.

    Args:
        on_first: called when a stop is asked for.
        on_second: called before the process ends.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            on_second()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.signal = signal.Signals(number)
        on_first()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
