"""What `foveate init` writes against a learned choice of the view: same images, same steps and training passes.

The other is this repository's configuration of the set with `gumbel`, the paper's idea, one pass per target. Both train
on the images that the configuration names, and are scored on its test images as `foveate evaluate` does it. What `init`
wrote is scored as it is trained, and tuned as the first steps do it: with one pass per target, and with as many passes
as `gumbel` makes. `--surround` adds the same with `foveation.surround: 4`. What is done is kept: the same command goes
on where it was stopped.
Usage: python benchmarks/init.py DATA OUT [--sets idrid,dubai,hrf] [--seeds 0,1,2] [--steps 150] [--surround]
DATA: the folder of data sets, see docs/how-to/data-sets.md. Writes benchmarks/results/init.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import torch
from timing import report

from foveate.demo import encoder_weights
from foveate.files import write_text
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_run
from foveate.runs.folder import RunFolder
from foveate.runs.init import init
from foveate.runs.train import train_run
from foveate.runs.tune import tune

CONFIGS = Path(__file__).parents[1] / "configs"
BUDGETS = (1.0, 1.75)  # one pass per target, and nearly as many as `gumbel` makes: its targets overlap by a quarter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default="idrid,dubai,hrf")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--surround", action="store_true")
    options = parser.parse_args()
    os.environ["FOVEATE_DATA"] = str(options.data)
    torch.set_num_threads(1)
    rows = [
        {"set": name, "seed": seed, **row}
        for seed in options.seeds.split(",")
        for name in options.sets.split(",")
        for row in compared(name, seed, options)
    ]
    words = f"--sets {options.sets} --seeds {options.seeds} --steps {options.steps}" + " --surround" * options.surround
    report("init", rows, {"command": f"python benchmarks/init.py DATA OUT {words}"})


def compared(name: str, seed: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """`gumbel`, and what `init` wrote: untuned, tuned, and tuned with the passes of `gumbel`."""
    gumbel, init = (trained(name, way, seed, options) for way in ("gumbel", "init"))
    if not (init.path / "scored.json").exists():
        init.tuned_file.unlink(
            missing_ok=True
        )  # a command that was stopped may have tuned what is to be scored untuned
    found = {"gumbel": scored(gumbel), "init, untuned": scored(init)}
    if not init.tuned_file.exists():
        tune(init.path, budgets=BUDGETS)
    found["init"] = scored(init, "fixed")
    found["init, passes of gumbel"] = scored(init, found["gumbel"]["passes"])
    if options.surround:
        around = trained(name, "surround", seed, options)
        if not around.tuned_file.exists():
            tune(around.path, budgets=BUDGETS)
        found["init with a surround"] = scored(around, "fixed")
        found["init with a surround, passes of gumbel"] = scored(around, found["gumbel"]["passes"])
    return [{"configuration": way, **figures} for way, figures in found.items()]


def trained(name: str, way: str, seed: str, options: argparse.Namespace) -> RunFolder:
    """The run, trained once."""
    run = RunFolder(options.out / f"{name}-{way}-seed{seed}")
    if not run.trained_file.exists():
        train_run(config_of(name, way, seed, options), run, resume=True, progress=False)
    return run


def scored(run: RunFolder, budget: float | str | None = None) -> dict[str, float]:
    """mIoU and passes per megapixel of the test images, scored once; tuned looks where there is a budget."""
    done = run.path / ("scored.json" if budget is None else f"scored-at-{budget}.json")
    if not done.exists():
        spent = [] if budget is None else [f"inference.budget={budget}"]
        evaluation = evaluate_run(run.path, "test", overrides=spent)
        write_text(
            done, json.dumps({"miou": 100 * evaluation.scores.miou, "passes": evaluation.cost["passes_per_megapixel"]})
        )
        print(done, done.read_text(), flush=True)
    figures: dict[str, float] = json.loads(done.read_text())
    return figures


def config_of(name: str, way: str, seed: str, options: argparse.Namespace) -> RunConfig:
    """The configuration, with the split, the steps and the weights of both."""
    path = CONFIGS / f"{name}.yaml"
    ours = RunConfig.load(path, estimator="gumbel")
    if way != "gumbel":
        path = options.out / f"{name}.yaml"
        init(options.data / name, path, overwrite=True)
    split = json.dumps(ours.data.split.model_dump())
    changes = [
        f"data.split={split}", f"network.weights={encoder_weights()}", f"training.seed={seed}", "data.workers=0",
        f"training.steps={options.steps}", f"training.validate_every={options.steps // 3}",
        f"training.locations_per_step={ours.training.locations_per_step}",
        *(["foveation.surround=4"] if way == "surround" else []),
    ]  # fmt: skip
    return RunConfig.load(path, changes, "gumbel" if way == "gumbel" else None)


if __name__ == "__main__":
    main()
