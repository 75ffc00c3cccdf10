"""A small prediction, whole or in processes that get killed: predict_toys.py FOLDER MODE."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from foveate.data.area import Area, Polygons
from foveate.data.channels import Normalisation
from foveate.data.readers import open_image
from foveate.data.readers.array import ArrayReader
from foveate.data.sections import ClassConfig
from foveate.foveation.estimators import GumbelSoftmax
from foveate.geometry import Size, Window
from foveate.inference.assemble import PredictionFiles
from foveate.inference.config import InferenceConfig
from foveate.inference.job import Prediction
from foveate.inference.session import Session
from foveate.inference.source import PixelSource
from foveate.inference.team import launched_team, started_team
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter

IMAGE = Size(150, 203)
RING = np.array([[20, 10], [120, 30], [90, 110], [40, 90], [20, 10]], float)
HOLE = np.array([[50, 40], [80, 40], [80, 70], [50, 70], [50, 40]], float)
AREA = Area(IMAGE, Polygons([(RING, HOLE)]))
CPU = torch.device("cpu")
CLASSES = [ClassConfig(name=name, color="#808080") for name in "abcd"]
PLAIN = Normalisation(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CONFIG = InferenceConfig(block_size=32, batch_size=4, outputs=("classes", "confidence", "foveation"))
RESULTS = ("classes.tif", "confidence.tif", "fov.tif")


def toy_pixels(height=150, width=203, seed=0):
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def toy_source(pixels=None, reader=ArrayReader):
    return PixelSource(reader(toy_pixels() if pixels is None else pixels), [0, 1, 2], PLAIN, CPU)


def toy_segmenter(seed=1, network=None):
    torch.manual_seed(seed)
    network = network or nn.Conv2d(3, 4, 3, padding=1)
    return FoveatedSegmenter(network, ScaleSet(16, (16, 32)), overview_downsample=8, estimator=GumbelSoftmax())


def toy_prediction(folder, *, config=CONFIG, model=None, source=None, area=None, strict=False):
    return Prediction(
        model or toy_segmenter(),
        source or toy_source(),
        PredictionFiles.in_folder(Path(folder), "toy"),
        classes=CLASSES,
        config=config,
        area=area,
        strict=strict,
    )


def final_bytes(folder, stem="toy", names=RESULTS):
    return {name: (Path(folder) / f"{stem}.{name}").read_bytes() for name in names}


def raster(path):
    with open_image(path) as image:
        return image.read(Window.of(image.size))[0]


def all_stored(folder):
    return len(list((folder / ".toy.partial/blocks").glob("*.block"))) == 35


def killed_until_done(folder, seed):
    """Fork a process that predicts, kill it after some blocks, again until one gets to its end; how often killed."""
    rng, kills, prediction = random.Random(seed), 0, toy_prediction(folder)

    def stored():
        return len(list(prediction.files.store.glob("blocks/*.block")))

    while True:
        child, enough = os.fork(), stored() + rng.randrange(7)
        if child == 0:
            prediction.run(resume=True)
            os._exit(0)
        ended, status = 0, 1
        while not ended and stored() < enough:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        if status == 0:
            return kills
        kills += 1


class SlowReader(ArrayReader):
    """Leaves others time to take part."""

    def read(self, window, size=None):
        time.sleep(0.02)
        return super().read(window, size)


def ready(folder, rank):
    return Path(folder).parent / f"{Path(folder).name} ready {rank}"


def wait_for_helpers(folder, processes):
    while not all(ready(folder, rank).exists() for rank in range(1, processes)):
        time.sleep(0.01)


def help_toy(team, folder, area=None):
    prediction = toy_prediction(folder, source=toy_source(reader=SlowReader), area=area)
    ready(folder, team.rank).touch()
    while team.hears(0) is None:
        time.sleep(0.01)
    prediction.help(Session(team, tell=print))


def together(folder, processes, kill=False, area=None):
    """Predict with some processes; print what was told, and how many worked on blocks."""
    owners, killed, prediction = set(), [], toy_prediction(folder, source=toy_source(reader=SlowReader), area=area)

    def look():
        claims = prediction.files.store / "claims"
        owners.update(claim.read_text() for claim in claims.iterdir())
        if kill and not killed and len(owners) == processes:
            killed.append(team.started[0].pid)
            os.kill(killed[0], signal.SIGKILL)
        return False

    with started_team(["cpu"] * processes, help_toy, str(folder), area) as team:
        wait_for_helpers(folder, processes)
        prediction.run(Session(team, tell=print, should_stop=look))
    print(len(owners), len(killed))


def leads_in_its_own_process(folder):
    """Under a launcher: every process says what it did."""
    with launched_team(["cpu"], Path(folder)) as team:
        _take_part(folder, team)
    print("done", team.rank, flush=True)


def _take_part(folder, team):
    if team.leads:
        prediction = toy_prediction(folder, source=toy_source(reader=SlowReader))
        wait_for_helpers(folder, team.size)
        prediction.run(Session(team))
    else:
        help_toy(team, folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, mode, *rest = sys.argv[1:]
    if mode == "killed":
        print(killed_until_done(where, int(rest[0])))
    elif mode == "together":
        together(where, int(rest[0]), kill="kill" in rest, area=AREA if "area" in rest else None)
    elif mode == "launched":
        leads_in_its_own_process(where)
