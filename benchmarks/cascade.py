"""Cascades, `coarse_first`, GLNet and patches with a surround against fixed views: mIoU of test images against passes.

What is done is kept: the same command goes on where it was stopped. Every run has the same number of training passes.
A fixed view is trained alone, for each field of view, and may keep any part of its windows; a cascade is tuned as
`foveate tune` does. At every budget the validation images choose among fixed views, and among a cascade's ways down.
GLNet has no looks to choose from: one row. `--memorised` scores cascades on training images too, `--margins` each part
of their windows that may be kept.
Usage: python benchmarks/cascade.py DATA OUT [--sets earth,dubai,idrid,hrf,drone] [--seeds 0]
    [--names fixed,own-512-128] [--budgets 16]
DATA: see benchmarks/study.py. Writes benchmarks/results/cascade-SET.json.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import cache
from itertools import product
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import torch
from timing import RESULTS, report
from torch.utils.flop_counter import FlopCounterMode

from foveate.cascade import CascadeSegmenter
from foveate.demo import encoder_weights
from foveate.files import write_text
from foveate.looks.pyramid import smallest_first
from foveate.networks.cascade import Context
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_run
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.train import train_run
from foveate.runs.tune import tune
from foveate.runs.tuned import Trial, read_curve, read_tuned

CONFIGS = Path(__file__).parents[1] / "configs" / "study"


class Way(NamedTuple):
    """A run: fields of view, estimator (a fixed field of view has none), and other changes to the configuration."""

    views: tuple[int, ...]
    estimator: str = ""
    changes: tuple[str, ...] = ()


class Plan(NamedTuple):
    """What is trained on a set.

    Attributes:
        passes: of a training step.
        views: of the fixed views.
        ways: by name, what is compared with them.
        budgets: passes per megapixel.
    """

    passes: int
    views: tuple[int, ...]
    ways: dict[str, Way]
    budgets: tuple[float, ...]


SHARED, OWN, COARSE = "{name: cascade, share: true}", "{name: cascade, share: false}", "{name: coarse_first}"
GLNET, SURROUND = "{name: glnet}", ("foveation.surround=4",)
# Ten times the steps of a set's configuration.
LONG = {
    "idrid": ("training.steps=1200", "training.validate_every=300"),
    "dubai": ("training.steps=3000", "training.validate_every=750"),
}
# What differs from an own-weights cascade with gain 10, by name of the ablation.
ABLATIONS = {
    "no-context": "context: none",
    "at-input": "context: input",
    "at-logits": "context: logits",
    "map": "handed: map",
    "probabilities": "handed: probabilities",
    "shared": "share: true",
    "shared-logits": "share: true, context: logits",
    "closer-1": "closer_per_wide: 1",
    "closer-3": "closer_per_wide: 3",
    "drop-0": "drop_context: 0",
    "drop-0.5": "drop_context: 0.5",
}


def ablations(views: tuple[int, ...]) -> dict[str, Way]:
    ways = {name: one if one.startswith("share") else f"share: false, {one}" for name, one in ABLATIONS.items()}
    return {f"without-{name}": Way(views, f"{{name: cascade, gain: 10, {one}}}") for name, one in ways.items()}


PLANS = {
    "dubai": Plan(
        18,
        (64, 128, 171, 256),
        {
            "shared-512-128": Way((128, 512), SHARED),
            "own-512-128": Way((128, 512), OWN),
            "gain-512-128": Way((128, 512), "{name: cascade, share: false, gain: 10}"),
            "shared-256-64": Way((64, 256), SHARED),
            # Five passes a location instead of three: as many in all.
            "three-512-256-128": Way(
                (128, 256, 512),
                "{name: cascade, share: true, gain: 10}",
                ("training.steps=360", "training.validate_every=360"),
            ),
            # The looks of `coarse-256-128-64`, as many passes each.
            "near-256-128-64": Way((64, 128, 256), "{name: cascade, share: true, gain: 10, closer_per_wide: 1}"),
            # Fixed views that learn from the middle of their windows, and as much from the whole.
            "centred-256": Way((64, 128, 256), "{name: fixed, index: 2, own_window: 1}"),
            "centred-128": Way((64, 128, 256), "{name: fixed, index: 1, own_window: 1}"),
            "coarse-256-128-64": Way((64, 128, 256), COARSE),
            "glnet-512-128": Way((128, 512), GLNET),
            "surround-64": Way((64,), changes=SURROUND),
            "surround-128": Way((128,), changes=SURROUND),
            "coarse-surround-256-128-64": Way((64, 128, 256), COARSE, SURROUND),
            "long-fixed-128": Way((128,), changes=LONG["dubai"]),
            "long-fixed-64": Way((64,), changes=LONG["dubai"]),
            "long-shared-512-128": Way((128, 512), "{name: cascade, share: true, gain: 10}", LONG["dubai"]),
            "long-surround-128": Way((128,), changes=(*LONG["dubai"], *SURROUND)),
            "long-coarse-256-128-64": Way((64, 128, 256), COARSE, LONG["dubai"]),
            "long-coarse-surround-256-128-64": Way((64, 128, 256), COARSE, (*LONG["dubai"], *SURROUND)),
            **ablations((128, 512)),
        },
        (31, 62, 124, 248),
    ),
    "earth": Plan(
        18,
        (64, 85, 128, 171, 256),
        {
            "shared-256-64": Way((64, 256), SHARED),
            "own-256-64": Way((64, 256), OWN),
            "coarse-256-128-64": Way((64, 128, 256), COARSE),
            "glnet-256-64": Way((64, 256), GLNET),
            "surround-64": Way((64,), changes=SURROUND),
            "coarse-surround-256-128-64": Way((64, 128, 256), COARSE, SURROUND),
            "surround-128": Way((128,), changes=SURROUND),
        },
        (64, 127, 254, 508),
    ),
    "idrid": Plan(
        12,
        (256, 512, 1024),
        {
            "own-2048-512": Way((512, 2048), "{name: cascade, share: false, gain: 10}"),
            # Learns from the middle of its windows as much as from the whole; the labels of whole ones take hours.
            "centred-1024": Way((512, 1024), "{name: fixed, index: 1, own_window: 1}"),
            "coarse-2048-512": Way((512, 2048), COARSE),
            "glnet-2048-512": Way((512, 2048), GLNET),
            "surround-256": Way((256,), changes=SURROUND),
            "surround-512": Way((512,), changes=SURROUND),
            "coarse-surround-1024-512-256": Way((256, 512, 1024), COARSE, SURROUND),
            "long-own-2048-512": Way((512, 2048), "{name: cascade, share: false, gain: 10}", LONG["idrid"]),
            "long-fixed-512": Way((512,), changes=LONG["idrid"]),
            "long-surround-512": Way((512,), changes=(*LONG["idrid"], *SURROUND)),
            "long-coarse-1024-512-256": Way((256, 512, 1024), COARSE, LONG["idrid"]),
            # Links to the images and masks of idrid but 05, 06, 07, 09, 10 and 11: three images to train on.
            "three-images-2048-512": Way(
                (512, 2048), "{name: cascade, share: false, gain: 10}", ("data.folder=idrid-three",)
            ),
            **ablations((512, 2048)),
        },
        (2, 4, 8, 16),
    ),
    "hrf": Plan(
        12,
        (128, 256, 512),
        {
            "own-1024-256": Way((256, 1024), "{name: cascade, share: false, gain: 10}"),
            "shared-1024-256": Way((256, 1024), "{name: cascade, share: true, gain: 10}"),
            "coarse-512-256-128": Way((128, 256, 512), COARSE),
            "glnet-1024-256": Way((256, 1024), GLNET),
            "surround-256": Way((256,), changes=SURROUND),
            "surround-128": Way((128,), changes=SURROUND),
            "coarse-surround-512-256-128": Way((128, 256, 512), COARSE, SURROUND),
        },
        (8, 16, 32, 64),
    ),
    "drone": Plan(
        18,
        (128, 171, 256, 512),
        {
            "shared-512-128": Way((128, 512), "{name: cascade, share: true, gain: 10}"),
            "coarse-512-256-128": Way((128, 256, 512), COARSE),
            "glnet-512-128": Way((128, 512), GLNET),
            "surround-128": Way((128,), changes=SURROUND),
            "coarse-surround-512-256-128": Way((128, 256, 512), COARSE, SURROUND),
        },
        (8, 16, 32, 64, 128),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default="earth,dubai,idrid")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--names", help="those whose name begins so; all by default")
    parser.add_argument("--budgets", help="passes per megapixel to score on test images; all of the set's by default")
    parser.add_argument(
        "--memorised", action="store_true", help="every look of what is trained, on training images too"
    )
    parser.add_argument("--margins", action="store_true", help="cascades of two looks with and without margins")
    options = parser.parse_args()
    os.environ["FOVEATE_DATA"] = str(options.data)
    torch.set_num_threads(1)
    for name in options.sets.split(","):
        if options.memorised:
            memorised(name, sorted(path.parent for path in (options.out / name).glob("own*/tuned.json")))
            continue
        if options.margins:
            if not (options.names and options.budgets):
                parser.error("--margins needs --names, of one cascade, and --budgets, of one number")
            seeds, budget = options.seeds.split(","), float(options.budgets)
            margins(name, [options.out / name / f"{options.names}-seed{seed}" for seed in seeds], budget)
            continue
        budgets = tuple(map(float, options.budgets.split(","))) if options.budgets else PLANS[name].budgets
        study(name, options.out / name, options.seeds.split(","), tuple((options.names or "").split(",")), budgets)


def study(name: str, out: Path, seeds: list[str], names: tuple[str, ...], budgets: tuple[float, ...]) -> None:
    plan, rows = PLANS[name], []
    runs = {f"fixed-{view}": Way((view,)) for view in plan.views} | plan.ways
    for seed in seeds:
        folders = {run: out / f"{run}-seed{seed}" for run in runs if run.startswith(names)}
        for run, folder in folders.items():
            train(name, folder, seed, runs[run], plan.passes)
            if not is_joint(runs[run]):
                tuned(folder, plan.budgets)
        rows += [
            {"way": run, "seed": seed, "budget": "", **scored_once(folder)}
            for run, folder in folders.items()
            if is_joint(runs[run])
        ]
        fixed = [folder for run, folder in folders.items() if run.startswith("fixed")]
        for budget in budgets:
            best = max(fixed, key=lambda folder: miou_at(folder, budget), default=None)
            ways = {"best fixed view": best} | {run: folders.get(run) for run in plan.ways}
            rows += [
                {"way": way, "seed": seed, "budget": budget, **scored(folder, budget)}
                for way, folder in ways.items()
                if folder is not None and not is_joint(runs.get(way)) and at(read_curve(folder / "tuned.json"), budget)
            ]
    scored_at = ",".join(f"{budget:g}" for budget in budgets)
    keep_rows(name, rows, f"--seeds {','.join(seeds)} --names {','.join(names)} --budgets {scored_at}")


def keep_rows(name: str, rows: list[dict[str, Any]], what: str) -> None:
    """Add rows to those of earlier commands; what was scored again is replaced."""
    file, again = RESULTS / f"cascade-{name}.json", {(row["run"], row["budget"]) for row in rows}
    known = json.loads(file.read_text()) if file.exists() else {"rows": [], "notes": {"command": ""}}
    earlier = [row for row in known["rows"] if (row["run"], row["budget"]) not in again]
    commands = [one for one in known["notes"]["command"].split("; ") if one]
    mine = f"python benchmarks/cascade.py DATA OUT --sets {name} {what}"
    report(f"cascade-{name}", [*earlier, *rows], {"command": "; ".join(dict.fromkeys([*commands, mine]))})


def memorised(name: str, folders: list[Path]) -> None:
    """mIoU of whole windows on three images to train on (the set NAME-three), and on validation images."""
    rows = []
    for folder in folders:
        close, wide = load_run(folder).segmenter.scales.fields_of_view
        ways = {"wide": ([[wide, 1]], [1]), "close": ([[close, 1]], [1]), "both": ([[close, 1], [wide, 1]], [50, 1])}
        for way, (looks, fusion) in ways.items():
            overrides = [f"inference.looks={looks}", f"inference.fusion={fusion}", "inference.budget=all"]
            few = [f"data.root={os.environ['FOVEATE_DATA']}", f"data.folder={name}-three"]
            found = {
                "train": evaluated(folder, [*few, *overrides], "train")["miou"],
                "val": evaluated(folder, overrides, "val")["miou"],
            }
            rows.append({"run": folder.name, "way": way, "looks": str(looks), **found})
    command = f"python benchmarks/cascade.py DATA OUT --sets {name} --memorised"
    report(f"cascade-{name}-memorised", rows, {"command": command})


def margins(name: str, folders: list[Path], budget: float) -> None:
    """mIoU with whole windows and with their central halves, of the wide look and of the closer one."""
    rows = []
    for folder, wide, close in product(folders, (1.0, 0.5), (1.0, 0.5)):
        views = load_run(folder).segmenter.scales.fields_of_view
        looks = [list(look) for look in smallest_first(zip(views, (close, wide), strict=True))]
        overrides = [
            "inference.planner=pyramid", f"inference.looks={looks}", "inference.fusion=[3, 1]",
            f"inference.budget={budget}",
        ]  # fmt: skip
        trees = {split: evaluated(folder, overrides, split) for split in ("val", "test")}
        row = {
            "run": folder.name,
            "wide keeps": wide,
            "closer keeps": close,
            "passes": trees["test"]["passes_per_megapixel"],
        }
        rows.append(row | {split: tree["miou"] for split, tree in trees.items()})
        print(rows[-1], flush=True)
    names = f"--names {folders[0].name.rpartition('-seed')[0]} --seeds {','.join(one.name[-1] for one in folders)}"
    command = f"python benchmarks/cascade.py DATA OUT --sets {name} --margins {names} --budgets {budget:g}"
    report(f"cascade-{name}-margins", rows, {"command": command})


def is_joint(way: Way | None) -> bool:
    """Whether a way has no looks to choose from."""
    return way is not None and way.estimator == GLNET


def train(name: str, folder: Path, seed: str, way: Way, passes: int) -> None:
    """Train a run that is not trained yet."""
    if RunFolder(folder).trained_file.exists():
        return
    changes = [
        f"network.weights={encoder_weights()}", f"training.seed={seed}", f"foveation.fields_of_view={list(way.views)}",
        *([f"foveation.estimator={way.estimator}"] if way.estimator else []), *way.changes,
    ]  # fmt: skip
    method = None if way.estimator else "fixed_1"
    config = RunConfig.load(CONFIGS / f"{name}.yaml", changes, method)
    locations = passes // config.foveation.estimator.reads(len(way.views)).passes
    changes.append(f"training.locations_per_step={locations}")
    changes.append(f"training.images_per_step={gcd(locations, config.training.images_per_step)}")
    print("training", folder, *changes, flush=True)
    train_run(RunConfig.load(CONFIGS / f"{name}.yaml", changes, method), RunFolder(folder), resume=True, progress=False)


def tuned(folder: Path, budgets: tuple[float, ...]) -> None:
    """Choose on the validation images for every budget, once."""
    if (folder / "tuned.json").exists():
        return
    target = load_run(folder).segmenter.scales.target
    print("tuning", folder, flush=True)
    tune(folder, budgets=[budget * target**2 / 1e6 for budget in budgets])


def at(curve: list[Trial], budget: float) -> Trial | None:
    """The point of a budget."""
    return next((point for point in curve if abs(point.budget - budget) < 0.01 * budget), None)


def miou_at(folder: Path, budget: float) -> float:
    point = at(read_curve(folder / "tuned.json"), budget)
    return -1.0 if point is None else point.miou


def scored(folder: Path, budget: float) -> dict[str, Any]:
    """The way of looking chosen for a budget, on the test images; scores are kept beside the run."""
    choice = next(one for one in read_tuned(folder / "tuned.json") if abs(one.budget - budget) < 0.01 * budget)
    looks = [list(look) for look in choice.looks]
    overrides = [
        "inference.planner=pyramid", f"inference.looks={looks}", f"inference.fusion={list(choice.fusion)}",
        f"inference.budget={'all' if len(looks) == 1 else choice.budget}",
    ]  # fmt: skip
    tree = evaluated(folder, overrides)
    passes = tree["passes_per_megapixel"]
    found = {
        "run": folder.name, "looks": str(looks), "validation": choice.miou, "passes": passes, "miou": tree["miou"],
        "gmac": passes * multiply_adds(folder) / 1e9,
        **{f"iou {one['name']}": one["iou"] for one in tree["classes"]},
    }  # fmt: skip
    print(found, flush=True)
    return found


def scored_once(folder: Path) -> dict[str, Any]:
    """A run with one way of looking, on test images. A pass of GLNet goes through two networks: it counts twice."""
    tree, validation = evaluated(folder, []), evaluated(folder, [], "val")
    scales = load_run(folder).segmenter.scales
    through = load_run(folder).segmenter.estimator.reads(len(scales)).passes
    passes = tree["passes_per_megapixel"]
    found = {
        "run": folder.name, "looks": str(list(scales.fields_of_view)), "validation": validation["miou"],
        "passes": passes * through, "miou": tree["miou"], "gmac": passes * multiply_adds(folder) / 1e9,
        **{f"iou {one['name']}": one["iou"] for one in tree["classes"]},
    }  # fmt: skip
    print(found, flush=True)
    return found


def evaluated(folder: Path, overrides: list[str], split: str = "test") -> dict[str, Any]:
    """Scores and cost on the test images, or others, once; several budgets may have the same choice."""
    file, key = folder / f"{split}-scores.json", " ".join(overrides)
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if key not in known:
        known[key] = evaluate_run(folder, split, overrides=overrides).tree()
        write_text(file, json.dumps(known), overwrite=True)
    found: dict[str, Any] = known[key]
    return found


@cache
def multiply_adds(folder: Path) -> float:
    """Of one pass; of a cascade the closest look's, with its context."""
    model = load_run(folder).segmenter
    patch = model.blank()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(model, CascadeSegmenter):
            handed = torch.zeros_like(model.look(patch, len(model.scales) - 1).handed)
            before = counter.get_total_flops()
            model.look(patch, 0, Context(handed, torch.zeros(1, 2), model.share_of_wider(0)))
            return (counter.get_total_flops() - before) / 2
        model.predict_windows(patch, torch.eye(len(model.scales))[:1])
        return counter.get_total_flops() / 2


if __name__ == "__main__":
    main()
