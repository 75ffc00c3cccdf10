"""Where class maps differ from one without seams: along the borders of windows, and inside them.

A small network learns for about a minute to see three kinds of ground through strong noise, which needs context, and a
window's border has none beyond it. The class map of each overlap and blending is compared with one whose windows begin
every 8 pixels and count near their centres only: near borders and elsewhere, on several images. How wrong a single
window is by the distance from its border tells the cause. Usage: python benchmarks/seams.py
"""

from __future__ import annotations

import argparse
import os
from itertools import pairwise
from typing import Any, NamedTuple

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
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.source import PixelSource

PATCH = 64
NEAR = 4  # pixels on each side of a border
PLAIN = Normalisation(1.0, (0.0,) * 3, (1.0,) * 3)
CPU = torch.device("cpu")


class Way(NamedTuple):
    """Of placing windows: its options of inference, the side that is used of each, and the pixels to the next one."""

    name: str
    options: dict[str, Any]
    side: int
    stride: int


def _overlapping(blending: str, overlap: float) -> Way:
    options = {"planner": "per_target", "overlap": overlap, "blending": blending}
    return Way(f"overlap {overlap:g}, {blending}", options, PATCH, round(PATCH * (1 - overlap)))


def _central(keep: float) -> Way:
    options = {"planner": "pyramid", "looks": [[PATCH, keep]], "budget": "all"}
    return Way(f"central {keep:g} of each window", options, round(PATCH * keep), round(PATCH * keep))


# Without overlap blending changes nothing.
WAYS = [_overlapping("none", 0.0)]
WAYS += [_overlapping(blending, overlap) for overlap in (0.25, 0.375, 0.5) for blending in ("none", "hann", "gaussian")]
WAYS += [_central(0.75), _central(0.5)]
REFERENCE = _overlapping("gaussian", 0.875)


class Scene(NamedTuple):
    image: np.ndarray  # (3, H, W) float32
    labels: np.ndarray  # (H, W) int64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--images", type=int, default=3)
    options = parser.parse_args()
    network = trained(scene(0, 1024), options.steps)
    scales = ScaleSet(PATCH, (PATCH, 2 * PATCH))
    segmenter = ready_to_predict(FoveatedSegmenter(network, scales, estimator=FixedScale()), CPU)
    tests = [scene(1 + i, options.side) for i in range(options.images)]
    references = [class_map(segmenter, test, REFERENCE) for test in tests]
    rows = [row_of(way, [class_map(segmenter, test, way) for test in tests], references, tests) for way in WAYS]
    alone = [class_map(segmenter, test, WAYS[0]) for test in tests]
    notes = {"steps": options.steps, "side": options.side, "images": options.images, "patch": PATCH, "near, px": NEAR}
    report("seams", rows, {**notes, "wrong by distance from the border, %": by_distance(alone, tests)})


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


def class_map(segmenter: FoveatedSegmenter, test: Scene, way: Way) -> np.ndarray:
    source = PixelSource(ArrayReader(test.image), [0, 1, 2], PLAIN, CPU)
    result = np.zeros(test.labels.shape, np.uint8)
    for done in finished_blocks(segmenter, source, InferenceConfig.parse({**way.options, "block_size": 512})):
        result[done.window.within(Window.of(source.size))] = done.logits.argmax(0).numpy()
    return result


def row_of(way: Way, found: list[np.ndarray], references: list[np.ndarray], tests: list[Scene]) -> dict[str, object]:
    near = near_borders(len(tests[0].labels), way)
    near = near[:, None] | near[None, :]
    differs = [ours != reference for ours, reference in zip(found, references, strict=True)]
    wrong = [ours != test.labels for ours, test in zip(found, tests, strict=True)]
    ratios = [float(one[near].mean() / one[~near].mean()) for one in differs]
    return {
        "way": way.name,
        "passes per target": (PATCH / way.stride) ** 2,
        "differs near borders, %": 100 * float(np.mean([one[near].mean() for one in differs])),
        "differs inside, %": 100 * float(np.mean([one[~near].mean() for one in differs])),
        "near / inside": float(np.mean(ratios)),
        "its spread": float(np.std(ratios, ddof=1)) if len(ratios) > 1 else 0.0,
        "wrong near borders, %": 100 * float(np.mean([one[near].mean() for one in wrong])),
        "wrong inside, %": 100 * float(np.mean([one[~near].mean() for one in wrong])),
    }


def near_borders(length: int, way: Way) -> np.ndarray:
    """(length,) whether a row, or column, is near the first or last that is used of a window inside the image."""
    result = np.zeros(length, bool)
    for start in tile_starts(length, way.side, way.stride):
        for border in (start, start + way.side):
            if 0 < border < length:
                result[max(0, border - NEAR) : border + NEAR] = True
    return result


def by_distance(found: list[np.ndarray], tests: list[Scene]) -> dict[str, float]:
    """How wrong windows that do not overlap are, by the distance of a pixel from the nearest border of its window."""
    place = np.arange(len(tests[0].labels)) % PATCH
    from_border = np.minimum(place, PATCH - 1 - place)
    distance = np.minimum(from_border[:, None], from_border[None, :])
    wrong = np.mean([ours != test.labels for ours, test in zip(found, tests, strict=True)], axis=0)
    steps = (0, 2, 4, 8, 16, 24, PATCH // 2)
    return {
        f"{low} to {high - 1} px": 100 * float(wrong[(distance >= low) & (distance < high)].mean())
        for low, high in pairwise(steps)
    }


if __name__ == "__main__":
    main()
