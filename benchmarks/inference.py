"""Whole-image time over the bare forward time of the same batches, and peak memory for growing images.

Each size runs in a process of its own, so that its peak memory is its own. With `--network tiny` (one convolution) the
time is that of everything but the network. Usage: python benchmarks/inference.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import numpy as np
import rasterio
import torch
from timing import report

from foveate import FoveatedSegmenter, GumbelSoftmax, ScaleSet, build_network, open_image
from foveate.data.channels import Normalisation
from foveate.data.sections import ClassConfig
from foveate.devices import peak_memory_mb
from foveate.inference.assemble import PredictionFiles
from foveate.inference.config import InferenceConfig
from foveate.inference.job import Prediction
from foveate.inference.pipeline import ready_to_predict
from foveate.inference.source import PixelSource

CONFIG = InferenceConfig(overlap=0, batch_size=16, block_size=2048)
SAMPLE = 12  # batches of the bare forward, before and after
CLASSES = [ClassConfig(name=name, color="#808080") for name in "abc"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[25, 100, 400])
    parser.add_argument("--one", type=Path, help="measure one image in this process and print JSON")
    parser.add_argument("--network", choices=["lite0", "tiny"], default="lite0")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.megapixels[0], options.one, options.network)))
        return
    with tempfile.TemporaryDirectory() as folder:
        images = {size: make_image(Path(folder) / f"{size}.tif", size) for size in options.megapixels}
        rows = [in_new_process(size, image, options.network) for size, image in images.items()]
    report(
        f"inference-{options.network}",
        rows,
        {"network": f"FPN, {options.network}", "patch": 256, "cores": os.cpu_count()},
    )


def in_new_process(megapixels: int, image: Path, network: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(image), "--megapixels", str(megapixels), "--network", network]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(megapixels: int, path: Path, name: str) -> dict[str, float]:
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    if name == "lite0":
        network = build_network("fpn", "tf_efficientnet_lite0", classes=3, weights=None)
    scales = ScaleSet(256, (256, 512, 1024))
    segmenter = ready_to_predict(
        FoveatedSegmenter(network, scales, overview_downsample=64, estimator=GumbelSoftmax()), torch.device("cpu")
    )
    with tempfile.TemporaryDirectory() as folder, open_image(path) as image:
        source = PixelSource(image, [0, 1, 2], Normalisation(255.0, (0.5,) * 3, (0.5,) * 3), torch.device("cpu"))
        forward(segmenter, 2)
        before = forward(segmenter, SAMPLE)
        start = time.perf_counter()
        files = PredictionFiles.in_folder(Path(folder), "out")
        summary = Prediction(segmenter, source, files, classes=CLASSES, config=CONFIG).run()
        whole = time.perf_counter() - start
    batches = -(-summary["passes"] // CONFIG.batch_size)
    # Half of the comparison before and half after: the speed of a shared machine drifts.
    bare = (before + forward(segmenter, SAMPLE)) / (2 * SAMPLE) * batches
    return {
        "megapixels": megapixels,
        "seconds": whole,
        "bare forward, s": bare,
        "whole / bare": whole / bare,
        "peak MiB": peak_memory_mb(),
    }


@torch.inference_mode()
def forward(segmenter: FoveatedSegmenter, batches: int) -> float:
    """Seconds the network alone takes for this many batches."""
    batch = torch.rand(CONFIG.batch_size, 3, 256, 256)
    start = time.perf_counter()
    for _ in range(batches):
        segmenter.network(batch)
    return time.perf_counter() - start


def make_image(path: Path, megapixels: int) -> Path:
    """A tiled TIFF of smooth noise, with overviews, written block by block."""
    side, rng = int((megapixels * 1e6) ** 0.5) // 512 * 512, np.random.default_rng(0)
    tile = np.kron(rng.integers(0, 255, (3, 64, 64), dtype=np.uint8), np.ones((1, 8, 8), np.uint8))
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "tiled": True, "blockxsize": 512, "blockysize": 512}
    transform = rasterio.Affine.scale(2.0)
    with rasterio.open(path, "w", width=side, height=side, compress="lzw", transform=transform, **profile) as target:
        for top in range(0, side, 512):
            for left in range(0, side, 512):
                target.write(np.roll(tile, (top + left) // 7, axis=1), window=((top, top + 512), (left, left + 512)))
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4, 8, 16, 32, 64], rasterio.enums.Resampling.average)
    return path


if __name__ == "__main__":
    main()
