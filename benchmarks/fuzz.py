"""Change files of every kind at random, use them, and count what comes of it.

A trial changes one file (bits, bytes, pieces, numbers, lines, its end) and uses it as the library does. It is `clear`
where one error of ours names the file; `harmless` where the result is the same, or where the kind has no checksum and
the file is whole but another one; `wrong` where anything else happens: another error, another result of a file with a
checksum or of an image that was cut short, a process that dies, more than a minute, or more than 1.5 GiB of memory.

Usage: python benchmarks/fuzz.py --trials 10000 --seed 0
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

os.environ["FOVEATE_CACHE"] = ""

import torch
from fuzz_changes import changed
from fuzz_kinds import KINDS, Kind

from foveate.errors import FoveateError

SECONDS, KILOBYTES = 60, 3 << 19
OUTCOMES = ("clear", "harmless", "wrong")


class Trial(NamedTuple):
    kind: str
    seed: int
    change: str
    outcome: str
    said: str


class Bench:
    """One kind, its file as it was made, and its use."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = kind.make(folder)
        inside = sorted(path for path in self.path.rglob("*") if path.is_file()) if self.path.is_dir() else [self.path]
        self.original = {path: path.read_bytes() for path in inside}
        self.right = kind.use(self.path)

    def trial(self, seed: int) -> Trial:
        rng = random.Random(f"{self.kind.name} {seed}")
        file = rng.choice(sorted(self.original))
        is_text = self.kind.text or file.suffix in (".json",) or file.name.startswith(".z")
        change, data = changed(self.original[file], rng, is_text)
        file.write_bytes(data)
        try:
            outcome, said = self._outcome(data == self.original[file], change == "cut")
        finally:
            file.write_bytes(self.original[file])
        return Trial(self.kind.name, seed, change, outcome, said)

    def _outcome(self, same: bool, cut: bool) -> tuple[str, str]:
        try:
            found = self.kind.use(self.path)
        except FoveateError as error:
            text = str(error)
            names = [path.name for path in (self.path, *self.original)] + [self.kind.also] * bool(self.kind.also)
            named = any(name in text for name in names)
            return ("clear", "") if named and text.strip() else ("wrong", f"does not name the file: {text}")
        except Exception as error:
            return "wrong", f"{type(error).__name__}: {error}"[:300]
        if same or found == self.right:
            return "harmless", ""
        if self.kind.exact or (cut and self.kind.whole and not Told.named(self.path.name)):
            return "wrong", f"another result without a word: {str(found)[:200]}"
        return "harmless", ""


class Told(logging.Handler):
    """What was said about files that could be used all the same."""

    lines: ClassVar[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @classmethod
    def named(cls, name: str) -> bool:
        return any(name in line for line in cls.lines)


@contextmanager
def _limits() -> Iterator[None]:
    """An error after `SECONDS`."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"still at work after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak() -> int:
    """Most memory held since it was asked last, kB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak


def one_trial(bench: Bench, seed: int) -> Trial:
    """A trial within its limits."""
    Told.lines.clear()
    _peak()
    before = _peak()
    with _limits():
        trial = bench.trial(seed)
    used = _peak() - before
    if used > KILOBYTES:
        return trial._replace(outcome="wrong", said=f"took {used >> 10} MiB")
    return trial


@contextmanager
def listening() -> Iterator[None]:
    """Hear what the library says, and nothing of the others."""
    logger, other = logging.getLogger("foveate"), logging.getLogger("rasterio")
    before, level = (logger.handlers, logger.propagate), other.level
    logger.handlers, logger.propagate = [Told()], False
    other.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before
        other.setLevel(level)


def _work(pipe: Connection, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    benches: dict[int, Bench] = {}
    with listening():
        while (task := pipe.recv()) is not None:
            number, seed = task
            if number not in benches:
                benches[number] = Bench(KINDS[number], Path(folder) / str(number))
            pipe.send(one_trial(benches[number], seed))


class Worker:
    """A process for trials, started again where a trial ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Any = None

    def run(self, number: int, seed: int) -> Trial:
        if self._process is None:
            self._start()
        self._pipe.send((number, seed))
        wait = SECONDS + 30
        if self._pipe.poll(wait):
            try:
                return self._pipe.recv()
            except EOFError:
                said = f"the process ended with {self._code()}"
        else:
            said = f"the process does not answer after {wait} s"
        self._process.kill()
        self._process = None
        return Trial(KINDS[number].name, seed, "", "wrong", said)

    def _code(self) -> Any:
        self._process.join(5)
        return self._process.exitcode

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        folder = tempfile.mkdtemp(dir=self._folder)
        self._process = context.Process(target=_work, args=(other, folder), daemon=True)
        self._process.start()
        other.close()

    def close(self) -> None:
        if self._process is not None:
            self._pipe.send(None)
            self._process.join(10)


def table(trials: list[Trial]) -> str:
    """Tried, clear, harmless and wrong of each kind."""
    counts: dict[str, Counter[str]] = {}
    for trial in trials:
        counts.setdefault(trial.kind, Counter())[trial.outcome] += 1
    rows = [(name, sum(count.values()), *(count[one] for one in OUTCOMES)) for name, count in counts.items()]
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, 5))))
    lines = [f"{'kind':24s}{'tried':>8s}" + "".join(f"{one:>10s}" for one in OUTCOMES)]
    return "\n".join([*lines, *(f"{row[0]:24s}{row[1]:8d}" + "".join(f"{n:10d}" for n in row[2:]) for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="in all; each kind gets as many")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of a kind")
    parser.add_argument("--kinds", nargs="*", help="names of kinds; all by default")
    parser.add_argument("--out", type=Path, help="JSON file with the counts and every wrong trial")
    options = parser.parse_args()
    numbers = [i for i, kind in enumerate(KINDS) if not options.kinds or kind.name in options.kinds]
    each, start, trials = -(-options.trials // len(numbers)), time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="foveate-fuzz-") as folder:
        worker = Worker(Path(folder))
        for number in numbers:
            found = [worker.run(number, options.seed + i) for i in range(each)]
            trials += found
            wrong = [trial for trial in found if trial.outcome == "wrong"]
            print(
                f"{KINDS[number].name}: {len(wrong)} wrong of {len(found)}, {time.monotonic() - start:.0f} s",
                file=sys.stderr,
            )
            for trial in wrong[:20]:
                print(f"    seed {trial.seed}, {trial.change}: {trial.said}", file=sys.stderr)
        worker.close()
    print(table(trials))
    if options.out:
        tree = {"seed": options.seed, "table": table(trials).splitlines()}
        tree["wrong"] = [trial._asdict() for trial in trials if trial.outcome == "wrong"]
        options.out.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(trial.outcome == "wrong" for trial in trials))


if __name__ == "__main__":
    main()
