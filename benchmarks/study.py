"""The study of docs/results.md, from nothing: every method, budgets, oracle and ablations on every data set.

What is done is kept: the same command goes on where it was stopped. A data set takes hours on two cores. Tables go to
OUT/SET/comparison.md and benchmarks/results.
Usage: python benchmarks/study.py DATA OUT [--sets earth,dubai,idrid] [--parts methods,budgets,ablations] [--seeds 0]
`--sets idrid-long --parts methods,budgets` is idrid trained ten times as long; it has no ablations.
DATA is made by benchmarks/study_data.py; dubai and idrid: docs/how-to/data-sets.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from study_data import aliased

from foveate.demo import encoder_weights

CONFIGS = Path(__file__).parents[1] / "configs" / "study"
METHODS = (
    "fixed_1,fixed_2,fixed_3,random,average,ensemble,mean,mode_plain,gumbel_soft,mixture,coarse_first,"
    "mean_paper,mode_plain_paper,gumbel_soft_paper"
)
BUDGETED = "fixed_1,fixed_2,fixed_3,ensemble,mixture,coarse_first"
LONG_SHARES = "0.125,0.25,0.5,1"
LONG_METHODS = "fixed_1,fixed_2,fixed_3,ensemble"
FOLDERS = {"earth": "earth-study", "dubai": "dubai", "idrid": "idrid"}
VIEWS = {"earth": (64, 128, 256), "dubai": (64, 128, 256), "idrid": (128, 256, 512)}
# Sets that are trained ten times as long as the configuration of the same name says.
TEN_TIMES = {"idrid-long": ["training.steps=1200", "training.warmup_steps=60", "training.validate_every=1200"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default="earth,dubai,idrid")
    parser.add_argument("--parts", default="methods,budgets,ablations")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--devices", default="auto")
    options = parser.parse_args()
    os.environ["FOVEATE_DATA"] = str(options.data)
    for name in options.sets.split(","):
        for part in options.parts.split(","):
            PARTS[part](name, options.out / name, options)


def methods(name: str, out: Path, options: argparse.Namespace) -> None:
    compare(name, LONG_METHODS if name in TEN_TIMES else METHODS, out / "methods", [], options)


def budgets(name: str, out: Path, options: argparse.Namespace) -> None:
    """Accuracy against passes, where to look closer, and the oracle: of what `methods` trained."""
    folder = str(out / "methods")
    if name in TEN_TIMES:
        script(
            "budget.py", folder, "--name", f"study-{name}", "--estimators", "fixed_3,ensemble", "--shares", LONG_SHARES
        )
        return
    views = VIEWS[name]
    script("budget.py", folder, "--name", f"study-{name}", "--estimators", BUDGETED, "--shares", "0.25,0.5,1,1.31,2")
    script("oracle.py", folder, "--name", f"study-{name}")
    script("gain.py", folder, "--name", f"study-{name}", "--close", str(views[0]), "--wide", str(views[1]))


def ablations(name: str, out: Path, options: argparse.Namespace) -> None:
    """What each part of the method brings; `methods` has alignment, and the mixture against expected input."""
    folder = FOLDERS[name]
    aliased(options.data / folder, options.data / f"{folder}-aliased")
    compare(name, "fixed_3,mixture", out / "aliased", [f"data.folder={folder}-aliased"], options)
    for ablation, (names, change) in changed(*VIEWS[name]).items():
        compare(name, names, out / ablation, [change], options)


def changed(near: int, middle: int, far: int) -> dict[str, tuple[str, str]]:
    """By name of the ablation: methods, and what differs from the study's configuration."""
    return {
        "no-own-window": ("mixture", "foveation.estimator={name: mixture, own_window: 0}"),
        "fixed-no-own-window": ("fixed_2", "foveation.estimator={name: fixed, own_window: 0}"),
        "untold-scale": ("mixture", "foveation.tell_scale=false"),
        "two-scales-near": ("mixture", f"foveation.fields_of_view=[{near},{middle}]"),
        "two-scales-far": ("mixture", f"foveation.fields_of_view=[{near},{far}]"),
    }


def compare(name: str, names: str, folder: Path, changes: list[str], options: argparse.Namespace) -> None:
    weights = f"network.weights={encoder_weights()}"
    changes = [*TEN_TIMES.get(name, []), *changes]
    config = CONFIGS / f"{name.removesuffix('-long')}.yaml"
    command = ["foveate", "compare", str(config), weights, *changes, "--estimators", names]
    call([sys.executable, "-m", *command, "--seeds", options.seeds, "--devices", options.devices, "--out", str(folder)])


def script(name: str, *arguments: str) -> None:
    call([sys.executable, str(Path(__file__).with_name(name)), *arguments])


def call(command: list[str]) -> None:
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


PARTS = {"methods": methods, "budgets": budgets, "ablations": ablations}

if __name__ == "__main__":
    main()
