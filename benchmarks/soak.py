"""Kills and signals at random moments, over train, predict and compare: is anything ever silently wrong?

Each round starts a command on a tiny data set with a small network, lets it work for a moment, and sends a signal: to
the process, to its group as Ctrl-C does, or to one of those that it started. Then the same command goes on, until one
life comes to its end, whose results must be the bytes (for checkpoints, the tensors) of a run that nobody disturbed.
After every signal it is looked at what a user or a script would see: the exit code, a word on how to go on, no
half-written result under a final name, no process still at work after 15 seconds.

Commands that start no interpreter of their own are forks of this process, which has imported all: most of the time of a
command this small would be imports. Usage: python benchmarks/soak.py --signals 100
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os

# Before torch is imported: forks must not meet threads, and a wide terminal breaks no word in two.
os.environ.update(OMP_NUM_THREADS="1", COLUMNS="200", PYTHONWARNINGS="ignore")

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import yaml
from timing import report

from foveate.build import load_checkpoint
from foveate.cli.app import main as command_line

SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
WORDS = ("to continue, run", "interrupted", "ended by")
PATIENCE = 15.0  # seconds in which everything has ended
CLASSES = [{"name": "ground", "color": "#202020"}, {"name": "disc", "color": "#e0c040"}]


class Kind(NamedTuple):
    """A command that is disturbed.

    Attributes:
        name: of the row in the table.
        share: of the signals.
        words: of the command, but for --out.
        results: what must be the same at the end, by name: digests of what is in the folder of the results.
        forked: starts no interpreter by its own command line.
        resumes: goes on with --resume; compare goes on by itself.
    """

    name: str
    share: float
    words: list[str]
    results: Callable[[Path], dict[str, str]]
    forked: bool = True
    resumes: bool = True


@dataclass
class Tally:
    """What happened to one kind of command."""

    signals: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Signals in all."""
        return sum(self.signals[kind] for kind in ("KILL", "TERM", "INT"))

    def fault(self, kind: str, text: str) -> None:
        """Note what was not right."""
        self.wrong[kind] += 1
        self.told.append(f"{kind}: {text}")
        print(f"  {kind}: {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=100, help="how many are sent in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=2, help="commands that are soaked at a time")
    parser.add_argument("--only", nargs="+", help="names of commands; all by default")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(options.together, mp_context=get_context("fork")) as pool,
    ):
        kinds = [kind for kind in prepared(Path(name)) if not options.only or kind.name in options.only]
        shares = sum(kind.share for kind in kinds)
        soaks = {
            kind.name: pool.submit(soak, kind, round(options.signals * kind.share / shares), options.seed, Path(name))
            for kind in kinds
        }
        tallies = {name: soaked.result() for name, soaked in soaks.items()}
    rows = [row(name, tally) for name, tally in tallies.items()]
    faults = [text for tally in tallies.values() for text in tally.told]
    report("soak", rows, {"seed": options.seed, "faults": faults or "none"})
    sys.exit(bool(faults))


def row(name: str, tally: Tally) -> dict[str, Any]:
    sent = {f"SIG{kind}": tally.signals[kind] for kind in ("KILL", "TERM", "INT")}
    silent = tally.wrong["other result"] + tally.wrong["half-written"] + tally.wrong["no word"]
    loud = {check: tally.wrong[check] for check in ("exit code", "left at work", "no end")}
    children = {"to a child": tally.signals["child"]}
    return {"command": name, **sent, **children, "rounds": tally.rounds, **loud, "silent": silent}


def soak(kind: Kind, count: int, seed: int, folder: Path) -> Tally:
    """Disturb a command until so many signals were sent; each round ends with a life that is left alone."""
    rng, tally = random.Random(f"{seed} {kind.name}"), Tally()
    whole = undisturbed(kind, folder / f"{kind.name} reference")
    begun = time.monotonic()
    if undisturbed(kind, folder / f"{kind.name} again") != whole:
        tally.fault("other result", "of two lives that nobody disturbed")
    seconds = time.monotonic() - begun
    while (left := count - tally.sent) > 0:
        tally.rounds += 1
        out = folder / f"{kind.name} {tally.rounds}"
        for _ in range(min(left, rng.randint(1, 6))):
            number, target = rng.choice(list(SIGNALS)), rng.choice(["process", "process", "group", "child"])
            if not Life(kind, out).disturb(number, target, rng.uniform(0.05, 1.0) * seconds, tally):
                break  # it came to its end before, which is compared below
            for name, digest in kind.results(out).items():
                # A kill may come between the summary and the removal of the store, which the next life removes.
                if whole.get(name) != digest and not name.startswith("left "):
                    tally.fault("half-written", f"{name} after {number.name} to the {target}")
        to_the_end(kind, out, whole, tally)
        shutil.rmtree(out, ignore_errors=True)
        print(f"{kind.name}: {tally.sent} of {count}", flush=True)
    return tally


def undisturbed(kind: Kind, out: Path) -> dict[str, str]:
    """The results of a life that nobody disturbs."""
    life = Life(kind, out)
    if (code := life.wait(None)) != 0:
        raise RuntimeError(f"{kind.name} fails undisturbed, with {code}: {life.said}")
    if kind.forked:
        import_as(out.with_suffix(".log"))
    return kind.results(out)


def to_the_end(kind: Kind, out: Path, whole: dict[str, str], tally: Tally) -> None:
    """A life that is left alone, and what it leaves."""
    last = Life(kind, out)
    code = last.wait(None)
    if code != 0:
        tally.fault("no end", f"{code}: {last.said[-500:]}")
    elif (found := kind.results(out)) != whole:
        different = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
        tally.fault("other result", ", ".join(different))


class Life:
    """One start of a command, until its end."""

    def __init__(self, kind: Kind, out: Path) -> None:
        again = ["--resume"] if kind.resumes and out.exists() else []
        self._log = out.with_suffix(".log")
        words = ["foveate", *kind.words, "--out", str(out), *again]
        start = forked if kind.forked else spawned
        self.pid, self.wait = start(words, self._log)

    @property
    def said(self) -> str:
        """All that it printed."""
        return self._log.read_text(errors="replace")

    def disturb(self, number: signal.Signals, target: str, seconds: float, tally: Tally) -> bool:
        """Send a signal after some seconds of work, and look at the end; whether it was still at work then."""
        if self.wait(seconds) is not None:
            return False
        family = below(self.pid)
        if target == "child" and len(family) > 1:
            self._kill_child(random.Random(seconds).choice(family[1:]), family, tally)
            return True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if target == "group" else os.kill(self.pid, number)
        tally.signals[number.name.removeprefix("SIG")] += 1
        self._look(number, target, family, tally)
        return True

    def _kill_child(self, pid: int, family: list[int], tally: Tally) -> None:
        """It is named, or the others go on without it; whichever, nobody waits for ever."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        tally.signals.update(KILL=1, child=1)
        code = self.wait(None)
        if code and not any(word in self.said for word in ("ended", "exit code", "signal", "killed")):
            tally.fault("no word", f"a killed child is not named, exit code {code}: {self.said[-300:]}")
        self._wait_for(family, "SIGKILL to a child", tally)

    def _look(self, number: signal.Signals, target: str, family: list[int], tally: Tally) -> None:
        what, right = f"{number.name} to the {target}", SIGNALS[number]
        code = self.wait(PATIENCE)
        if code is None:
            tally.fault("left at work", f"{what} does not end it")
        elif code not in (right, -number, 0):  # the second before the command had set up its handlers
            tally.fault("exit code", f"{code} after {what}: {self.said[-300:]}")
        elif code == right > 0 and not any(word in self.said for word in WORDS):
            tally.fault("no word", f"{code} after {what}: {self.said[-300:]}")
        self._wait_for(family, what, tally)

    def _wait_for(self, family: list[int], what: str, tally: Tally) -> None:
        """For all that it had started, which must end; what does not is killed."""
        end = time.monotonic() + PATIENCE
        while (alive := [pid for pid in family if runs(pid)]) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in alive:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                tally.fault("left at work", f"process {pid} after {what}: {words}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(None)


Wait = Callable[[float | None], int | None]


def spawned(words: list[str], log: Path) -> tuple[int, Wait]:
    """The command in an interpreter of its own: its number, and how to wait for its exit code."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0
        )

    def wait(seconds: float | None = None) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode

    return process.pid, wait


def forked(words: list[str], log: Path) -> tuple[int, Wait]:
    """The command in a fork of this process."""
    process = get_context("fork").Process(target=_in_fork, args=(words, log))
    process.start()

    def wait(seconds: float | None = None) -> int | None:
        process.join(seconds)
        return process.exitcode

    return process.pid or 0, wait


def _in_fork(words: list[str], log: Path) -> None:
    """Run the command line, and note what it imported: forks that come later find that."""
    os.setpgid(0, 0)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(handle, descriptor)
    sys.argv = words
    try:
        command_line()
    finally:
        log.with_suffix(".modules").write_text("\n".join(sys.modules))


def import_as(log: Path) -> None:
    """Import what a fork that came to its end has imported."""
    for name in log.with_suffix(".modules").read_text().splitlines():
        with suppress(Exception):
            importlib.import_module(name)


def below(pid: int) -> list[int]:
    """A process and all that it started, and that these started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found


def runs(pid: int) -> bool:
    """Whether a process is at work; one that nobody has waited for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def predicted(out: Path) -> dict[str, str]:
    """The rasters under their final names, and, once there is a summary, what is left beside them."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.tif"))}
    if list(out.glob("*.json")):
        found |= {f"left {path.name}": "" for path in out.glob(".*") if path.name.endswith(".partial")}
    return found


def trained(out: Path) -> dict[str, str]:
    """The weights of a run, and its scores, once it says that it is trained; before, only that."""
    if not (out / "trained.json").exists():
        return {}
    state = load_checkpoint(out / "checkpoints/last.ckpt")["state_dict"]
    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return {"weights": total.hexdigest(), "metrics": (out / "metrics.csv").read_text()}


def compared(out: Path) -> dict[str, str]:
    """The weights of every run that says it is trained, and the scores in the table."""
    found = {f"{run.name} {key}": value for run in sorted(out.glob("runs/*")) for key, value in trained(run).items()}
    for path in sorted(out.glob("runs/*/evaluation/*.json")):
        tree = yaml.safe_load(path.read_text())
        found[f"{path.parts[-3]} scores"] = str({key: tree.get(key) for key in ("miou", "confusion")})
    return found


def prepared(folder: Path) -> list[Kind]:
    """The data set, the run that predicts, and the commands."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        write(folder / f"toy/images/{name}.tif", folder / f"toy/masks/{name}.tif", rng, 100)
    image = write(folder / "scene.tif", folder / "unused.tif", rng, 300)
    config = folder / "toy.yaml"
    config.write_text(yaml.safe_dump(configuration(folder)))
    run = folder / "run"
    made = [sys.executable, "-m", "foveate", "train", str(config), "training.steps=2", "--out", str(run)]
    subprocess.run([*made, "--accelerator", "cpu"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    train = ["train", str(config), "--accelerator", "cpu"]
    predict = ["predict", str(run), str(image)]
    compare = ["compare", str(config), "--estimators", "fixed_1,mean", "--seeds", "0", "--split", "val"]
    return [
        Kind("compare", 0.08, [*compare, "--devices", "cpu:2"], compared, resumes=False),
        Kind("train", 0.38, train, trained),
        Kind("predict", 0.4, [*predict, "--device", "cpu"], predicted),
        Kind("predict in two", 0.08, [*predict, "--devices", "cpu:2"], predicted),
        Kind("train in two", 0.06, [*train, "--devices", "2"], trained, forked=False),
    ]


def write(image: Path, mask: Path, rng: np.random.Generator, side: int) -> Path:
    """Bright discs on dark ground, with noise."""
    rows, cols = np.mgrid[:side, :side]
    label = np.zeros((side, side), np.uint8)
    for row, col, radius in zip(*rng.integers(8, side, (2, 12)), rng.integers(8, 30, 12), strict=True):
        label[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 1
    pixels = (rng.normal(80, 20, (3, side, side)) + 90 * label).clip(0, 255).astype(np.uint8)
    for path, values in ((image, pixels), (mask, label[None])):
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"count": len(values), "height": side, "width": side, "dtype": "uint8"}
        transform = rasterio.Affine(1, 0, 100, 0, -1, 900)
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=transform, **shape) as file:
            file.write(values)
    return image


def configuration(folder: Path) -> dict[str, Any]:
    """A small network, few steps."""
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    return {
        "name": "toy",
        "data": {"root": str(folder), "folder": "toy", "classes": CLASSES, "split": {"val": ["d"]}, "workers": 0},
        "foveation": {"patch_size": 32, "fields_of_view": [32, 64], "overview_downsample": 8},
        "network": {"architecture": "unet", "encoder": "resnet18", "weights": None, "options": options},
        "training": {
            "steps": 16, "validate_every": 8, "checkpoint_every": 3,
            "locations_per_step": 2, "images_per_step": 2, "validation_locations": 2,
        },
        "inference": {"block_size": 64, "batch_size": 8},
    }  # fmt: skip


if __name__ == "__main__":
    main()
