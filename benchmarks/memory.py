"""Peak memory of a prediction for growing images: it must not grow with them.

Images are sparse BigTIFF files with a pyramid, so that ten gigapixels cost no disk. The network is one convolution;
class map, confidence and foveation map are written. Each size runs in a process of its own. `bound` is what
`foveate predict` says before it starts. Usage: python benchmarks/memory.py --megapixels 100 1000 10000
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

import rasterio
import torch
from timing import report

from foveate import FoveatedSegmenter, GumbelSoftmax, ScaleSet, open_image
from foveate.data.channels import Normalisation
from foveate.data.sections import ClassConfig
from foveate.devices import peak_memory_mb
from foveate.inference.assemble import PredictionFiles
from foveate.inference.config import InferenceConfig
from foveate.inference.job import Prediction
from foveate.inference.memory import MemoryModel
from foveate.inference.pipeline import ready_to_predict
from foveate.inference.source import PixelSource

CONFIG = InferenceConfig(
    overlap=0, batch_size=16, block_size=2048, blending="none", outputs=("classes", "confidence", "foveation")
)
CLASSES = [ClassConfig(name=name, color="#808080") for name in "ab"]
VIEWS = (1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--folder", type=Path, help="for images and results; a temporary one by default")
    parser.add_argument("--one", type=Path, help="measure one image in this process and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        images = [make_image(Path(folder) / f"{size}.tif", size) for size in options.megapixels]
        rows = [in_new_process(image) for image in images]
    least, most = (pick(row["peak MiB"] for row in rows) for pick in (min, max))
    report(
        "memory",
        rows,
        {"largest over smallest peak": round(most / least, 3), "block": CONFIG.block_size, "views": list(VIEWS)},
    )


def in_new_process(image: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(image)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(path: Path) -> dict[str, float]:
    """Predict one image; its peak is this process's."""
    torch.manual_seed(0)
    scales = ScaleSet(256, VIEWS)
    segmenter = ready_to_predict(
        FoveatedSegmenter(
            torch.nn.Conv2d(1, 2, 3, padding=1), scales, in_channels=1, overview_downsample=128,
            estimator=GumbelSoftmax(),
        ),
        torch.device("cpu"),
    )  # fmt: skip
    with open_image(path) as image:
        source = PixelSource(image, [0], Normalisation(255.0, (0.5,), (0.5,)), torch.device("cpu"))
        before = peak_memory_mb()
        model = MemoryModel.of(segmenter, source, CONFIG, len(CLASSES))
        bound = model.bound(CONFIG.block_size, CONFIG.batch_size).main / 2**20
        start = time.perf_counter()
        files = PredictionFiles.in_folder(path.with_suffix(".out"), "out")
        Prediction(segmenter, source, files, classes=CLASSES, config=CONFIG).run()
        megapixels = image.size.megapixels
    seconds = time.perf_counter() - start
    return {
        "megapixels": round(megapixels),
        "seconds": seconds,
        "MP/s": megapixels / seconds,
        "before MiB": before,
        "peak MiB": peak_memory_mb(),
        "bound MiB": bound,
    }


def make_image(path: Path, megapixels: int) -> Path:
    """A sparse TIFF of one band: tiles that were never written take no room and read as zeros."""
    side = int((megapixels * 1e6) ** 0.5)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "tiled": True, "blockxsize": 512, "blockysize": 512}
    transform = rasterio.Affine.scale(2.0)
    with rasterio.open(
        path, "w", width=side, height=side, transform=transform, BIGTIFF="YES", SPARSE_OK=True, **profile
    ):
        pass
    with rasterio.Env(SPARSE_OK_OVERVIEW="ON"), rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4, 8, 16, 32, 64, 128], rasterio.enums.Resampling.average)
    return path


if __name__ == "__main__":
    main()
