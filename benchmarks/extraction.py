"""Patches per second and core by kind of file, and the share of a training step spent waiting for data.

Usage: python benchmarks/extraction.py [--locations 200] [--steps 30]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import lightning.pytorch as pl
import numpy as np
import torch
from timing import report

from foveate import ScaleSet, Size, Window, open_image
from foveate.data.readers import ArrayReader, ImageReader
from foveate.data.readers.gdal import open_dataset
from foveate.demo import demo_config, make_earth
from foveate.runs.folder import RunFolder
from foveate.runs.train import prepare_training

SCALES = {64: ScaleSet(64, (64, 128, 256)), 256: ScaleSet(256, (256, 512, 1024))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--locations", type=int, default=200)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = sources(Path(folder))
        rows = [rate(name, path, patch, options.locations) for name, path in files.items() for patch in SCALES]
        report("extraction", rows, {"scales": "1, 2 and 4 x the patch", "threads": 1})
        report("data-wait", [waiting(Path(folder), options.steps)], {"network": "demo", "cores": os.cpu_count()})


def sources(folder: Path) -> dict[str, Path]:
    """The demo's image as a tiled TIFF pyramid, as JPEG and as an array."""
    tiled = make_earth(folder / "earth").image
    with open_image(tiled) as image:
        pixels = image.read(Window.of(image.size))
    jpeg = folder / "earth.jpg"
    shape = {"count": 3, "height": 2700, "width": 5400, "dtype": "uint8"}
    with open_dataset(jpeg, "w", driver="JPEG", quality=90, **shape) as target:
        target.write(pixels)
    np.save(folder / "earth.npy", pixels)
    return {"tiled TIFF": tiled, "JPEG": jpeg, "array": folder / "earth.npy"}


def opened(path: Path) -> ImageReader:
    return ArrayReader(np.load(path)) if path.suffix == ".npy" else open_image(path)


def rate(name: str, path: Path, patch: int, locations: int) -> dict[str, str | int | float]:
    """Patches per second of one thread at random places, first read (decoding) apart."""
    torch.set_num_threads(1)
    scales, rng = SCALES[patch], np.random.default_rng(0)
    with opened(path) as image:
        start = time.perf_counter()
        image.read(Window(0, 0, 1024, 1024), Size.square(64))
        first = time.perf_counter() - start
        cells = [
            Window(int(rng.integers(image.size.height)), int(rng.integers(image.size.width)), 16, 16)
            for _ in range(locations)
        ]
        start = time.perf_counter()
        for cell in cells:
            for scale in range(len(scales)):
                image.read(scales.window(cell, scale), Size.square(patch))
        seconds = time.perf_counter() - start
    torch.set_num_threads(os.cpu_count() or 1)
    count = locations * len(scales)
    return {"source": name, "patch": patch, "patches/s": count / seconds, "first read, s": first}


class Waiting(pl.Callback):
    """Time between the end of one batch and the start of the next, beside the whole."""

    def __init__(self) -> None:
        self.waited = self.total = 0.0
        self.mark = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step >= 5:  # workers have filled their queues
            self.waited += time.perf_counter() - self.mark
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.mark = time.perf_counter()
        if trainer.global_step > 5:
            self.total += self.mark - self.begin


def waiting(folder: Path, steps: int) -> dict[str, float | int]:
    """Train the demo for a while and measure how long steps wait for their batch."""
    config = demo_config(folder, [f"training.steps={steps}", "training.warmup_steps=1"])
    prepared = prepare_training(config, RunFolder(folder / "run"))
    watch = Waiting()
    prepared.fit(progress=False, callbacks=[watch])
    whole = watch.total + watch.waited
    return {
        "steps": steps,
        "ms per step": 1000 * whole / (steps - 5),
        "waiting, % of a step": 100 * watch.waited / whole,
    }


if __name__ == "__main__":
    main()
