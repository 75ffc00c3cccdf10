"""Waiting for what other processes do; the limits are only there for what hangs."""

import os
import time
from contextlib import suppress
from pathlib import Path


def wait_for(condition, seconds=240):
    """What a condition gives once that counts as true; a file or process that is not there yet counts as false."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError, ValueError):
            if found := condition():
                return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def runs(pid):
    """Whether a process is at work; one that nobody has waited for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid):
    """Numbers of the processes that a process started and that are at work."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid and runs(int(folder.name)):
                found.append(int(folder.name))
    return found


def variables(**more):
    """Of the environment, for an interpreter that finds what this one does."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | more
