import os
import signal
from contextlib import closing

import pytest

from foveate.errors import DatasetError, WorkerError
from foveate.inference.sharing.processes import from_processes


def numbered(share, total):
    yield from share.numbers(total)


def killed(share, total):
    for number in share.numbers(total):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield number


def refusing(share):
    yield share.rank
    raise DatasetError("the mask is upside down")


def endless(share):
    while True:
        yield os.getpid()


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_number_is_done_once():
    assert sorted(from_processes(numbered, 2, 50)) == list(range(50))


def test_a_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(WorkerError, match="exit code -9 before its share was done"):
        list(from_processes(killed, 2, 1000))


def test_an_error_in_a_process_is_raised_here_with_its_traceback():
    with pytest.raises(DatasetError, match="upside down") as caught:
        list(from_processes(refusing, 1))
    assert "in refusing" in caught.value.__notes__[0]


def test_no_process_outlives_the_iterator():
    with closing(from_processes(endless, 2)) as pids:
        first = next(pids)
        assert is_running(first)
    assert not is_running(first)
