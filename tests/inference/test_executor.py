import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from foveate.errors import ConfigError, DatasetError, WorkerError
from foveate.inference.executor import _epitaph, dask_executor, pieces_of, results_of, shared_out


def nothing(rank):
    return rank


def number_of(rank, number):
    return number


def killed(rank, number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refusing(rank, number):
    raise DatasetError("the mask is upside down")


def endless(rank, number):
    if number:
        time.sleep(600)
    return os.getpid()


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_number_is_done_once():
    assert sorted(shared_out(nothing, number_of, range(50), 2)) == list(range(50))


def test_a_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(WorkerError, match="exit code -9 before its share was done"):
        list(shared_out(nothing, killed, range(1000), 2))


def dead_before_it_begins(rank):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_while_pieces_are_still_sent_is_the_same_error():
    with pytest.raises(WorkerError, match="exit code -9"):
        list(shared_out(dead_before_it_begins, number_of, slowly(range(200)), 1))


def slowly(numbers):
    for number in numbers:
        time.sleep(0.1)
        yield number


def test_an_exit_code_that_another_thread_was_told_is_waited_for():
    class Process:
        codes = iter([None, None, -9])

        @property
        def exitcode(self):
            return next(self.codes, -9)

    assert "exit code -9" in _epitaph([Process()])


def test_a_script_without_a_guard_ends_and_says_what_is_missing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from foveate.inference.executor import shared_out\nprint(list(shared_out(str, divmod, [1], 2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith('keeps its work under `if __name__ == "__main__":`')


def test_an_error_in_a_process_is_raised_here_with_its_traceback():
    with pytest.raises(DatasetError, match="upside down") as caught:
        list(shared_out(nothing, refusing, [0], 1))
    assert "in refusing" in caught.value.__notes__[0]


def test_no_process_outlives_the_iterator():
    with closing(shared_out(nothing, endless, range(3), 2)) as pids:
        first = next(pids)
        assert is_running(first)
    assert not is_running(first)


@pytest.mark.parametrize(("count", "processes"), [(0, 2), (1, 4), (100, 3), (7, 1)])
def test_pieces_are_runs_of_neighbours_that_hold_every_number_once(count, processes):
    assert [number for piece in pieces_of(count, processes) for number in piece] == list(range(count))


@pytest.mark.slow  # a cluster of its own
@pytest.mark.filterwarnings("ignore")
def test_a_dask_worker_that_dies_is_replaced_and_an_error_comes_back(tmp_path):
    pytest.importorskip("distributed")
    with dask_executor("local", 2) as executor:
        futures = [executor.submit(_killed_once, str(tmp_path / "killed"), number) for number in range(8)]
        assert sorted(results_of(futures, lambda: None)) == list(range(8))
        assert (tmp_path / "killed").exists()
        with pytest.raises(DatasetError, match="upside down"):
            list(results_of([executor.submit(refusing, 0, 0)], lambda: None))


def _killed_once(flag, number):
    if number == 3 and not os.path.exists(flag):  # noqa: PTH110
        open(flag, "w").close()  # noqa: PTH123
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_scheduler_that_nobody_runs_is_an_error():
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="no Dask scheduler answers at nonsense"), dask_executor("nonsense://1"):
        pass


def test_without_the_extra_dask_says_what_to_install(monkeypatch):
    monkeypatch.setattr("foveate.inference.executor.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"foveate\[dask\]"), dask_executor("local"):
        pass
