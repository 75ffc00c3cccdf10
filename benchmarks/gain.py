"""Where to look closer: where the wide look is unsure, by the predicted drop in loss, by chance, or by the true drop.

Of each run, the wide and the close cover are predicted everywhere once; every rule then chooses the supports that a
budget pays for. The drop in loss is predicted by ridge regression on what the wide look says about a support, fitted on
the validation images. The true drop reads the labels: no method can have it.
Usage: python benchmarks/gain.py COMPARISON [--estimator coarse_first] [--close 64] [--keep 0.5] [--wide 256]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import torch
import torch.nn.functional as F
from timing import report
from torch import Tensor

from foveate.data.images import open_labels
from foveate.data.manifest import load_samples
from foveate.data.readers import open_image
from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.source import PixelSource
from foveate.membership import Exclusive
from foveate.metrics import confusion_matrix, scores_from
from foveate.runs.folder import TrainedRun, load_run

RULES = ("entropy", "predicted drop", "true drop", "chance")


class Maps(NamedTuple):
    """An image as both covers see it: probabilities (C, H, W) half precision, labels (H, W)."""

    wide: Tensor
    close: Tensor
    labels: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--estimator", default="coarse_first")
    parser.add_argument("--close", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--wide", type=int, default=256)
    parser.add_argument("--shares", default="0.25,0.5,1,2")
    parser.add_argument("--name", help="of the results; that of the comparison by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    runs = sorted((options.comparison / "runs").glob(f"{options.estimator}-seed*"))
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(scored, runs, [options] * len(runs)))
    rows = [
        {"rule": rule, "share of fixed passes": share, "mIoU %": mean(values), "std": spread(values)}
        for rule, share in results[0]
        for values in [[result[rule, share] for result in results]]
    ]
    notes = {"close": options.close, "keep": options.keep, "wide": options.wide, "seeds": len(runs)}
    report(f"gain-{options.name or options.comparison.name}", rows, notes)


def spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else float("nan")


def scored(path: Path, options: argparse.Namespace) -> dict[tuple[str, float], float]:
    """mIoU in percent of one run, by rule and share of the passes of one fixed field of view."""
    torch.set_num_threads(1)
    run, side = load_run(path), round(options.keep * options.close)
    ridge = fitted(list(maps_of(run, "val", options)), side)
    shares = [float(share) for share in options.shares.split(",")]
    found = {
        (rule, share): confusion_matrix(len(run.config.data.classes), Exclusive()) for rule in RULES for share in shares
    }
    for maps in maps_of(run, "test", options):
        height, width = maps.labels.shape
        fixed, roots = (
            -(-height // side_) * -(-width // side_) for side_ in (run.segmenter.scales.target, options.wide)
        )
        for rule in RULES:
            gains = gains_of(rule, maps, side, ridge)
            for share in shares:
                prediction = fused(maps, gains, side, max(0, int(share * fixed) - roots))
                found[rule, share].update(prediction[None], maps.labels[None])
    names = run.config.data.class_names
    return {key: 100 * scores_from(matrix.compute(), names).miou for key, matrix in found.items()}


def maps_of(run: TrainedRun, split: str, options: argparse.Namespace) -> Iterator[Maps]:
    data = run.config.data
    for sample in load_samples(data):
        if sample.split != split:
            continue
        with open_image(sample.image) as reader, open_labels(sample, data) as labels:
            source = PixelSource.of(reader, data, run.device)
            truth = torch.from_numpy(labels.read(Window.of(reader.size))).long()
            wide, close = (cover(run, source, look) for look in ((options.wide, 1.0), (options.close, options.keep)))
            yield Maps(wide, close, truth)


def cover(run: TrainedRun, source: PixelSource, look: tuple[int, float]) -> Tensor:
    """Probabilities (C, H, W), half precision, of an image looked at one way everywhere."""
    config = InferenceConfig(planner="pyramid", looks=(look,), budget="all", block_size=1024, batch_size=32)
    whole = torch.zeros(len(run.config.data.classes), source.size.height, source.size.width, dtype=torch.float16)
    for done in finished_blocks(ready_to_predict(run.segmenter, run.device), source, config):
        whole[:, *done.window.within(Window.of(source.size))] = done.logits.softmax(dim=0).half()
    return whole


def gains_of(rule: str, maps: Maps, side: int, ridge: Tensor) -> Tensor:
    """The expected gain of a closer look at every support, (rows, cols)."""
    if rule == "entropy":
        return pooled(entropy(maps.wide)[None], side)[0]
    if rule == "predicted drop":
        return (features(maps, side) * ridge.view(-1, 1, 1)).sum(dim=0)
    if rule == "true drop":
        return drop(maps, side)
    shape = pooled(maps.labels[None].float(), side)[0].shape
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def fused(maps: Maps, gains: Tensor, side: int, passes: int) -> Tensor:
    """Class ids when the supports with the largest gains are looked at closely."""
    chosen = torch.zeros(gains.numel(), dtype=torch.bool)
    chosen[gains.flatten().topk(min(passes, gains.numel())).indices] = True
    height, width = maps.labels.shape
    closely = chosen.view(gains.shape).repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]
    return torch.where(closely, maps.close.argmax(dim=0), maps.wide.argmax(dim=0))


def fitted(images: list[Maps], side: int) -> Tensor:
    """Coefficients of the drop in loss on the features, weighted by labelled pixels."""
    rows = torch.cat([features(maps, side).flatten(1).T for maps in images]).double()
    drops = torch.cat([drop(maps, side).flatten() for maps in images]).double()
    weights = torch.cat([pooled((maps.labels != 255).float()[None], side).flatten() for maps in images]).double()
    weighted = rows * weights[:, None]
    penalty = 1e-6 * len(rows) * torch.eye(rows.shape[1], dtype=torch.float64)
    return torch.linalg.solve(weighted.T @ rows + penalty, weighted.T @ drops).float()


def features(maps: Maps, side: int) -> Tensor:
    """What the wide look says about every support, (K, rows, cols): entropy, its square, class shares, variances."""
    unsure = entropy(maps.wide)[None]
    wide = maps.wide.float()
    parts = [pooled(x, side) for x in (unsure, unsure**2, wide, wide * (1 - wide))]
    peak = F.max_pool2d(padded(unsure, side), side)
    return torch.cat([*parts, peak, torch.ones_like(peak)])


def drop(maps: Maps, side: int) -> Tensor:
    """By how much the cross entropy falls where the close look replaces the wide one, mean over each support."""
    known = maps.labels != 255
    index = torch.where(known, maps.labels, 0)[None]
    logs = [p.gather(0, index).float().clamp(min=1e-3).log()[0] for p in (maps.close, maps.wide)]
    return pooled(((logs[0] - logs[1]) * known)[None], side)[0]


def entropy(probabilities: Tensor) -> Tensor:
    p = probabilities.float()
    return -(p * p.clamp(min=1e-7).log()).sum(dim=0)


def pooled(values: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(padded(values, side), side)


def padded(values: Tensor, side: int) -> Tensor:
    height, width = values.shape[-2:]
    return F.pad(values, (0, -width % side, 0, -height % side))


if __name__ == "__main__":
    main()
