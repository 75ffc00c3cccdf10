"""Processes end with the one that they work for, however that ends."""

import os
import signal
import subprocess
import sys

import pytest

from foveate.processes import stopping
from process_toys import children, runs, variables, wait_for

FOLLOWER = (
    "from foveate.processes import follow_leader as f; import time; f(); print('on', flush=True); time.sleep(600)"
)
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, lambda *_: None); {FOLLOWER}"
LEADER = """
import os, subprocess, sys, time
from foveate.processes import led_by_this
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | led_by_this(), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
JOBS = """
import sys
from pathlib import Path
from foveate.runs.jobs import Job, run_jobs
from foveate.processes import end_on_signals
end_on_signals(print)
place = Path(sys.argv[1])
jobs = [Job(name, [sys.executable, "-c", sys.argv[2]], place / name, place / f"{name}.log") for name in "ab"]
print("on", flush=True)
run_jobs(jobs, [{}, {}], lambda *_: None)
"""


def started(*arguments, **options):
    command = [sys.executable, "-c", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables(), **options)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("follower", [FOLLOWER, STUBBORN])
def test_a_follower_ends_with_its_leader_whatever_the_signal(number, follower):
    leader = started(LEADER, follower)
    pid = int(leader.stdout.readline())
    assert runs(pid)
    leader.send_signal(number)
    leader.communicate()
    wait_for(lambda: not runs(pid))


def test_one_that_comes_too_late_ends_too():
    gone = subprocess.Popen(["true"])
    gone.wait()
    late = subprocess.run([sys.executable, "-c", FOLLOWER], env=variables(FOVEATE_LEADER=str(gone.pid)), check=False)
    assert late.returncode == -signal.SIGTERM


def test_a_leader_that_ended_and_that_nobody_has_waited_for_is_gone():
    """As where who started it reads what its helpers print, to the end, before."""
    leader = subprocess.Popen(["true"])
    wait_for(lambda: not runs(leader.pid))
    late = started(FOLLOWER.replace("f()", f"f({leader.pid})"))
    late.communicate(timeout=60)
    assert late.returncode == -signal.SIGTERM
    leader.wait()


def test_what_someone_else_started_is_left_alone():
    """The variable may be inherited by a process that another one started."""
    between = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    last = "from foveate.processes import follow_leader; import time; follow_leader(); time.sleep(3)"
    done = subprocess.run(
        [sys.executable, "-c", between, last], env=variables(FOVEATE_LEADER=str(os.getpid())), check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_runs_jobs_side_by_side_takes_them_along(tmp_path, number, code):
    leader = started(JOBS, tmp_path, FOLLOWER)
    assert leader.stdout.readline()
    wait_for(lambda: all("on\n" in (tmp_path / f"{name}.log").read_text() for name in "ab"))
    jobs = children(leader.pid)
    assert len(jobs) == 2
    leader.send_signal(number)
    leader.communicate()
    assert leader.returncode == code
    for pid in jobs:
        wait_for(lambda pid=pid: not runs(pid))


def test_a_fork_leaves_a_signal_to_its_parent():
    said = []
    with stopping(lambda: said.append("stopping")) as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7 if stop() or said else 0)
        assert os.waitpid(child, 0)[1] == 0
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
    assert said == ["stopping"]
    assert stop.exit_code == 130
