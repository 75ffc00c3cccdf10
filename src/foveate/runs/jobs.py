"""Run commands side by side, each after those it needs, with their output in logs."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from foveate.devices import available_cores, devices_of
from foveate.processes import led_by_this

_LOG_LINES = 5
_MOMENT = 10.0  # seconds in which a job ends well
_LOOK = 0.05  # seconds between looks at the jobs


@dataclass(frozen=True, slots=True)
class Job:
    """A command that leaves a file when it is done."""

    name: str  # unique among the jobs
    command: list[str]  # program and arguments
    done: Path  # the file by which a finished job is told; a job whose file is there is not run
    log: Path  # gets its output; what an earlier try wrote is kept
    after: tuple[str, ...] = ()  # names of the jobs that must be done before


def slots_of(devices: str) -> list[dict[str, str]]:
    """Environment variables for each process that may run at a time: its device, and its share of the cores.

    Devices are as `devices_of` reads them; "auto" without a GPU is one process for each core.
    """
    cores = available_cores()
    places = devices_of(devices)
    if devices == "auto" and places == ["cpu"]:
        places = ["cpu"] * cores
    threads = {"OMP_NUM_THREADS": str(max(1, cores // len(places)))}
    return [
        threads | {"CUDA_VISIBLE_DEVICES": place.removeprefix("cuda:") if "cuda" in place else ""} for place in places
    ]


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[dict[str, str]], on_change: Callable[[list[str], int, int], None]
) -> dict[str, str]:
    """Run what is not done, as many at a time as there are slots.

    Returns:
        By name of the failed job, the end of its log. Jobs that needed it are not run, and not named. Where the first
        two that end fail for the same reason, no further one is begun: it would fail too.
    """
    board = _Board(jobs, slots)

    def report() -> None:
        on_change(list(board.running), board.settled, board.total)

    try:
        while board.start() or board.running:
            report()
            board.collect()
    except BaseException:
        _end([one.process for one in board.running.values()])
        raise
    report()
    return board.failed


class _Running(NamedTuple):
    """A job at work."""

    job: Job
    slot: dict[str, str]
    process: subprocess.Popen[bytes]


class _Board:
    """Which jobs wait, run, are done and have failed."""

    def __init__(self, jobs: Sequence[Job], slots: Sequence[dict[str, str]]) -> None:
        self.total, self._free = len(jobs), list(slots)
        self._done = {job.name for job in jobs if job.done.exists()}
        self._waiting = [job for job in jobs if job.name not in self._done]
        self.running: dict[str, _Running] = {}
        self.failed: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._causes: list[str] = []  # of what ended so far; empty where it went well

    @property
    def settled(self) -> int:
        """Jobs that are done, or will not be."""
        return len(self._done | self._given_up)

    def start(self) -> bool:
        """Start what can run now; whether there was anything."""
        self._give_up()
        ready = [job for job in self._waiting if self._done.issuperset(job.after)][: len(self._free)]
        for job in ready:
            self._waiting.remove(job)
            slot = self._free.pop(0)
            self.running[job.name] = _Running(job, slot, _started(job, slot))
        return bool(ready)

    def _give_up(self) -> None:
        """Leave out jobs that need a failed one, and those that need them; or all, where all fail alike."""
        left = len(self._waiting)
        if left and len(self._causes) > 1 and self._causes[0] and len(set(self._causes)) == 1:
            self._given_up |= {job.name for job in self._waiting}
            self.failed[f"{left} more jobs"] = "not started, because the first ones failed for the same reason"
            self._waiting.clear()
        for job in list(self._waiting):
            if not self._given_up.isdisjoint(job.after):
                self._waiting.remove(job)
                self._given_up.add(job.name)

    def collect(self) -> None:
        """Wait until a job ends."""
        while not (ended := [one for one in self.running.values() if one.process.poll() is not None]):
            time.sleep(_LOOK)
        for job, slot, process in ended:
            del self.running[job.name]
            self._free.append(slot)
            if process.returncode == 0 and job.done.exists():
                self._done.add(job.name)
                self._causes.append("")
            else:
                end = _end_of(job.log)
                self.failed[job.name] = f"exit code {process.returncode}: {end}"
                self._given_up.add(job.name)
                # The last line, without what is of this job only.
                self._causes.append(end.rpartition(" / ")[2].replace(job.name.split()[-1], "") or "unknown")


def _started(job: Job, slot: dict[str, str]) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        log.write(f"$ {shlex.join(job.command)}\n".encode())
        log.flush()
        environment = {**os.environ, **slot, **led_by_this()}
        # Of a group of its own, so that Ctrl-C reaches it through this process only, once.
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes, which have a moment to do so well."""
    for process in processes:
        process.terminate()
    latest = time.monotonic() + _MOMENT
    for process in processes:
        try:
            process.wait(max(0.0, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-_LOG_LINES:])
