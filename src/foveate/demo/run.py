"""The demonstration from data to pictures."""

from __future__ import annotations

import json
import time
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
from foveate.inference.job import PredictionFiles
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
    "lakes-of-northern-europe": Window(330, 2960, 240, 360),
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
    fixed = {
        f"fixed {view} px": [
            f"foveation.estimator={{name: fixed, index: {i}}}",
            f"training.locations_per_step={locations}",
        ]
        for i, view in enumerate(views)
    }
    return {FOVEATE: []} | dict(reversed(fixed.items()))


def run_demo(
    out: Path, say: Say, *, overrides: list[str] | None = None, compare: bool = True, minutes: float = 6.0
) -> DemoResult:
    """Make the data, train on the Americas, evaluate elsewhere, predict the Earth, draw.

    Args:
        out: folder for everything.
        say: told each step in a line.
        overrides: changes to the configuration.
        compare: train and evaluate the fixed fields of view too.
        minutes: a fixed field of view that would not be done within these is left out, and that is said.
    """
    clock = _Clock(minutes)
    say("writing the Earth as GeoTIFF (5400 x 2700 pixels) with its labels")
    earth = make_earth(out / "data" / "earth")
    evaluations: dict[str, Evaluation] = {}
    for method, changes in methods(demo_config(out / "data", overrides)).items():
        if method != FOVEATE and not compare:
            continue
        if not clock.time_for_another():
            say(f"{method}: left out, as it would take longer than {minutes:g} minutes in all; see --minutes")
            continue
        config = demo_config(out / "data", [*(overrides or []), *changes])
        say(f"{method}: training on the Americas, {config.training.steps} steps")
        trained = _train(config, out / "runs" / method.replace(" ", "-"))
        say(f"{method}: evaluating on the rest of the world")
        evaluations[method] = evaluate_split(trained, "test")
        clock.one_done()
        if method == FOVEATE:
            say("predicting the whole Earth")
            pictures = _pictures(trained, earth, out)
    results = out / "results.json"
    tree = {method: evaluation.tree() for method, evaluation in evaluations.items()}
    write_text(results, json.dumps(tree, indent=2) + "\n", overwrite=True)
    return DemoResult(evaluations, pictures, results)


class _Clock:
    """Whether another method fits into the time, judging by the longest so far."""

    def __init__(self, minutes: float) -> None:
        self._mark = time.monotonic()
        self._end = self._mark + 60 * minutes
        self._longest = 0.0

    def one_done(self) -> None:
        now = time.monotonic()
        self._longest, self._mark = max(self._longest, now - self._mark), now

    def time_for_another(self) -> bool:
        self._mark = time.monotonic()
        return self._mark + self._longest <= self._end


def _train(config: RunConfig, folder: Path) -> TrainedRun:
    run = RunFolder(folder)
    with run.locked():
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
