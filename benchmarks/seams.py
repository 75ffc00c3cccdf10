"""Where class maps differ from a dense reference: along the borders of windows, and inside them.

A small network learns for about a minute to see three kinds of ground through strong noise, which needs context, and a
window's border has none beyond it. The class map of each overlap and blending is compared with that of an overlap of
0.75, near borders and elsewhere. Usage: python benchmarks/seams.py
"""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from timing import report
from torch import nn

from foveate import FoveatedSegmenter, ScaleSet, build_network
from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.foveation.estimators import FixedScale
from foveate.geometry import Window, tile_starts
from foveate.inference.config import InferenceConfig
from foveate.inference.predicting.pixels import PixelSource
from foveate.inference.predicting.run import finished_blocks, ready_to_predict

PATCH = 64
NEAR = 4  # pixels on each side of a border
PLAIN = Normalisation(1.0, (0.0,) * 3, (1.0,) * 3)
CPU = torch.device("cpu")


class Scene(NamedTuple):
    image: np.ndarray  # (3, H, W) float32
    labels: np.ndarray  # (H, W) int64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    options = parser.parse_args()
    network = trained(scene(0, 1024), options.steps)
    scales = ScaleSet(PATCH, (PATCH, 2 * PATCH))
    segmenter = ready_to_predict(FoveatedSegmenter(network, scales, estimator=FixedScale()), CPU)
    test = scene(1, options.side)
    rows = []
    for blending in ("none", "hann"):
        reference = class_map(segmenter, test, 0.75, blending)
        for overlap in (0.0, 0.25, 0.5):
            found = class_map(segmenter, test, overlap, blending)
            rows.append(row_of(found, reference, test.labels, overlap, blending))
    report("seams", rows, {"steps": options.steps, "side": options.side, "patch": PATCH, "near, px": NEAR})


def scene(seed: int, side: int) -> Scene:
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(rng.normal(size=(side, side)), 12, mode="wrap")
    labels = np.digitize(ground, np.quantile(ground, [0.4, 0.7]))
    noise = rng.normal(size=(3, side, side))
    return Scene((labels[None] - 1 + 1.5 * noise).astype(np.float32), labels)


def trained(source: Scene, steps: int) -> nn.Module:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    options = {"encoder_depth": 3, "decoder_channels": [32, 16, 16]}
    network = build_network("unet", "resnet18", classes=3, weights=None, **options)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(steps):
        corners = rng.integers(0, len(source.labels) - PATCH, (8, 2))
        windows = [np.s_[r : r + PATCH, c : c + PATCH] for r, c in corners]
        images = torch.stack([torch.from_numpy(source.image[:, *w]) for w in windows])
        labels = torch.stack([torch.from_numpy(source.labels[w]) for w in windows])
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network


def class_map(segmenter: FoveatedSegmenter, test: Scene, overlap: float, blending: str) -> np.ndarray:
    source = PixelSource(ArrayReader(test.image), [0, 1, 2], PLAIN, CPU)
    config = InferenceConfig.parse({"overlap": overlap, "blending": blending, "block_size": 512})
    result = np.zeros(test.labels.shape, np.uint8)
    for done in finished_blocks(segmenter, source, config):
        result[done.window.within(Window.of(source.size))] = done.logits.argmax(0).numpy()
    return result


def row_of(
    found: np.ndarray, reference: np.ndarray, labels: np.ndarray, overlap: float, blending: str
) -> dict[str, object]:
    differs = found != reference
    near = near_borders(len(labels), round(PATCH * (1 - overlap)))
    near = near[:, None] | near[None, :]
    return {
        "blending": blending,
        "overlap": overlap,
        "differs near borders, %": 100 * float(differs[near].mean()),
        "differs inside, %": 100 * float(differs[~near].mean()),
        "near / inside": float(differs[near].mean() / max(differs[~near].mean(), 1e-9)),
        "wrong near borders, %": 100 * float((found != labels)[near].mean()),
        "wrong inside, %": 100 * float((found != labels)[~near].mean()),
        "passes per target": 1 / (1 - overlap) ** 2,
    }


def near_borders(length: int, stride: int) -> np.ndarray:
    """(length,) whether a row, or column, is near the first or last of a window inside the image."""
    result = np.zeros(length, bool)
    for start in tile_starts(length, PATCH, stride):
        for border in (start, start + PATCH):
            if 0 < border < length:
                result[max(0, border - NEAR) : border + NEAR] = True
    return result


if __name__ == "__main__":
    main()
