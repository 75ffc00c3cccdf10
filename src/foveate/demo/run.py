"""The demonstration from data to pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
import yaml

from foveate.config_base import with_overrides
from foveate.demo.earth import EarthFiles, encoder_weights, make_earth
from foveate.files import write_text
from foveate.geometry import Window
from foveate.inference.evaluate import Evaluation
from foveate.inference.predict import PredictionFiles
from foveate.reporting.panels import save_panels
from foveate.reporting.preview import prediction_panels
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_split
from foveate.runs.folder import RunFolder, TrainedRun
from foveate.runs.predict import predict
from foveate.runs.train import prepare_training

FOVEATE = "foveate"
# What is drawn: everything, and two places full of lakes that training never saw.
PLACES = {
    "earth": None,
    "great-lakes-of-africa": Window(1250, 3050, 400, 600),
    "lakes-of-scandinavia": Window(300, 2900, 400, 600),
}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration measured and wrote.

    Attributes:
        evaluations: by method, on everything outside the Americas.
        pictures: PNG files.
        results: JSON with all figures.
    """

    evaluations: dict[str, Evaluation]
    pictures: list[Path]
    results: Path


def demo_config(root: Path, overrides: list[str] | None = None) -> RunConfig:
    """The demonstration's configuration, with data under `root`."""
    text = (resources.files("foveate.demo") / "earth.yaml").read_text(encoding="utf-8")
    places = [f"data.root={root}", f"network.weights={encoder_weights()}"]
    return RunConfig.parse(with_overrides(yaml.safe_load(text), [*places, *(overrides or [])]), source="demo")


def methods(config: RunConfig) -> dict[str, list[str]]:
    """Overrides by method: Foveate, and each fixed field of view with as many training passes and all else alike."""
    views = config.foveation.fields_of_view
    # Foveate passes every scale of a location in training: the others get as many passes a step, from more locations.
    locations = config.training.locations_per_step * len(views)
    return {FOVEATE: []} | {
        f"fixed {view} px": [
            f"foveation.estimator={{name: fixed, index: {i}}}",
            f"training.locations_per_step={locations}",
        ]
        for i, view in enumerate(views)
    }


def run_demo(out: Path, say: Say, *, overrides: list[str] | None = None, compare: bool = True) -> DemoResult:
    """Make the data, train on the Americas, evaluate elsewhere, predict the Earth, draw.

    Args:
        out: folder for everything.
        say: told each step in a line.
        overrides: changes to the configuration.
        compare: train and evaluate every fixed field of view too.
    """
    say("writing the Earth as GeoTIFF (5400 x 2700 pixels) with its labels")
    earth = make_earth(out / "data" / "earth")
    base = demo_config(out / "data", overrides)
    evaluations: dict[str, Evaluation] = {}
    for method, changes in methods(base).items():
        if method != FOVEATE and not compare:
            continue
        say(f"{method}: training on the Americas, {base.training.steps} steps")
        config = demo_config(out / "data", [*(overrides or []), *changes])
        trained = _train(config, out / "runs" / method.replace(" ", "-"))
        say(f"{method}: evaluating on the rest of the world")
        evaluations[method] = evaluate_split(trained, "test")
        if method == FOVEATE:
            say("predicting the whole Earth")
            pictures = _pictures(trained, earth, out)
    results = out / "results.json"
    tree = {method: evaluation.tree() for method, evaluation in evaluations.items()}
    write_text(results, json.dumps(tree, indent=2) + "\n", overwrite=True)
    return DemoResult(evaluations, pictures, results)


def _train(config: RunConfig, folder: Path) -> TrainedRun:
    run = RunFolder(folder)
    prepare_training(config, run, overwrite=True).fit()
    return run.load("last", torch.device("cpu"))


def _pictures(trained: TrainedRun, earth: EarthFiles, out: Path) -> list[Path]:
    predict(trained, earth.image, out / "prediction", overwrite=True)
    files = PredictionFiles.in_folder(out / "prediction", earth.image.stem)
    pictures = []
    for name, window in PLACES.items():
        panels = prediction_panels(earth.image, files, trained.config, earth.labels, window)
        pictures.append(out / f"{name}.png")
        save_panels(pictures[-1], panels, trained.config.data.classes, overwrite=True)
    return pictures
