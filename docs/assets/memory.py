"""Draw memory.png: what Foveate says it needs for growing images, beside holding image and probabilities whole.

The images are sparse files, so that ten gigapixels cost no disk; nothing is predicted.

Usage: python docs/assets/memory.py
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import rasterio
import torch
from matplotlib.figure import Figure

from foveate import FoveatedSegmenter, GumbelSoftmax, ScaleSet, build_network, open_image
from foveate.data import Normalisation
from foveate.inference import InferenceConfig, MemoryModel, PixelSource, ready_to_predict

CLASSES = 5
MEGAPIXELS = (10, 30, 100, 300, 1000, 3000, 10_000)
BLOCKS = {1024: "#9ecae1", 2048: "#4aa3df", 4096: "#08519c"}
GIB = 2**30


def main() -> None:
    torch.manual_seed(0)
    network = build_network("unet", "resnet18", classes=CLASSES, weights=None)
    scales = ScaleSet(256, (256, 512, 1024))
    segmenter = FoveatedSegmenter(network, scales, overview_downsample=64, estimator=GumbelSoftmax())
    ready_to_predict(segmenter, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        models = [model(segmenter, sparse(Path(folder) / f"{size}.tif", size)) for size in MEGAPIXELS]
    figure = Figure(figsize=(7.5, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    # Bytes of the image's three bands, and a probability of four bytes for each class.
    whole = [size * 1e6 * (3 + 4 * CLASSES) / GIB for size in MEGAPIXELS]
    axes.plot(MEGAPIXELS, whole, color="#e8564a", marker="o", label="image and probabilities, held whole")
    for side, color in BLOCKS.items():
        bounds = [m.bound(side, 16).main / GIB for m in models]
        axes.plot(MEGAPIXELS, bounds, color=color, marker="o", label=f"Foveate, blocks of {side} px")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("megapixels")
    axes.set_ylabel("GiB of memory")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"))


def model(segmenter: FoveatedSegmenter, path: Path) -> MemoryModel:
    with open_image(path) as image:
        source = PixelSource(image, [0, 1, 2], Normalisation(255.0, (0.5,) * 3, (0.5,) * 3), torch.device("cpu"))
        return MemoryModel.of(segmenter, source, InferenceConfig(), CLASSES)


def sparse(path: Path, megapixels: int) -> Path:
    """A tiled file of three bands with a pyramid, nothing of it written."""
    side = int((megapixels * 1e6) ** 0.5)
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "BIGTIFF": "YES", "SPARSE_OK": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=3, width=side, height=side, **tiles):
            pass
        with rasterio.Env(SPARSE_OK_OVERVIEW="ON"), rasterio.open(path, "r+") as target:
            target.build_overviews([2, 4, 8, 16, 32, 64], rasterio.enums.Resampling.average)
    return path


if __name__ == "__main__":
    main()
