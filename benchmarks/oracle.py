"""The most that choosing could bring: at every target, the prediction with the smallest true loss, among trained runs.

The oracle over fields of view reads the labels, so no method can have it. Part of its lead is only the luck of choosing
among several tries, so its control chooses the same way among seeds of one field of view.
Usage: python benchmarks/oracle.py COMPARISON [--split test] [--views 3] [--keep 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from timing import report
from torch import Tensor

from foveate.data.config import DataConfig
from foveate.data.images import open_labels
from foveate.data.labels import LabelReader
from foveate.data.manifest import Sample, load_samples
from foveate.data.readers import open_image
from foveate.geometry import IGNORE, Window
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import BlockGrid, LookPlan, block_side
from foveate.inference.source import PixelSource
from foveate.membership import Exclusive
from foveate.metrics import confusion_matrix, loss_per_cell, scores_from
from foveate.runs.folder import RunFolder, TrainedRun, load_run


def whole_image(path: Path, keep: float) -> TrainedRun:
    """A run that passes all of an image at its field of view, and uses so much of every window."""
    looks = [[view, keep] for view in RunFolder(path).configured().foveation.views_passed]
    return load_run(path, overrides=["inference.planner=pyramid", f"inference.looks={looks}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--keep", type=float, default=1.0, help="central part of each window that is used")
    parser.add_argument("--name", help="of the results; that of the comparison by default")
    options = parser.parse_args()
    runs = {
        view: [
            whole_image(path, options.keep)
            for path in sorted((options.comparison / "runs").glob(f"patch_{view}-seed*"))
        ]
        for view in range(1, options.views + 1)
    }
    seeds = min(len(group) for group in runs.values())
    rows = [row(f"fixed {view}", [score([run], options.split) for run in group]) for view, group in runs.items()]
    scales = [[runs[view][seed] for view in runs] for seed in range(seeds)]
    rows.append(row("oracle over fields of view", [score(group, options.split) for group in scales]))
    rows += [row(f"control: oracle over seeds of {v}", [score(group, options.split)]) for v, group in runs.items()]
    report(
        f"oracle-{options.name or options.comparison.name}",
        rows,
        {"split": options.split, "keep": options.keep, "seeds": seeds},
    )


def row(choice: str, mious: list[float]) -> dict[str, Any]:
    spread = 100 * stdev(mious) if len(mious) > 1 else float("nan")
    return {"choice": choice, "mIoU %": 100 * mean(mious), "std": spread, "of": len(mious)}


def score(runs: list[TrainedRun], split: str) -> float:
    """Mean IoU when every target gets the prediction of the run whose loss there is smallest."""
    data = runs[0].config.data
    matrix = confusion_matrix(len(data.classes), data.membership)
    for sample in load_samples(data):
        if sample.split == split:
            for prediction, labels in chosen_blocks(runs, sample, data):
                matrix.update(prediction[None], labels[None])
    return scores_from(matrix.compute(), data.class_names).miou


def chosen_blocks(runs: list[TrainedRun], sample: Sample, data: DataConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Class ids as the oracle chooses them, and labels, of each block."""
    target = runs[0].segmenter.scales.target
    with ExitStack() as stack:
        labels: LabelReader = stack.enter_context(open_labels(sample, data))
        sides = [LookPlan.of(run.config.inference, run.segmenter.estimator, run.segmenter.scales).root for run in runs]
        side = block_side(runs[0].config.inference.block_size, target, max(sides))
        each = []
        for run in runs:
            reader = stack.enter_context(open_image(sample.image))
            source = PixelSource.of(reader, data, run.device)
            blocks = list(BlockGrid(source.size, side))
            segmenter = ready_to_predict(run.segmenter, run.device)
            each.append(finished_blocks(segmenter, source, run.config.inference, blocks=labelled(blocks, labels)))
        for parts in zip(*each, strict=True):
            truth = torch.from_numpy(labels.read(parts[0].window)).long()
            yield best_of([part.logits for part in parts], truth, target), truth


def labelled(blocks: list[Window], labels: LabelReader) -> list[Window]:
    return [block for block in blocks if (labels.read(block) != IGNORE).any()]


def best_of(logits: list[Tensor], truth: Tensor, target: int) -> Tensor:
    """Class ids (h, w), from the logits (C, h, w) with the smallest loss in each target."""
    losses = torch.stack([loss_per_cell(one, truth, target, Exclusive()) for one in logits])
    choice = losses.nan_to_num().argmin(dim=0)
    choice = choice.repeat_interleave(target, 0).repeat_interleave(target, 1)[: truth.shape[0], : truth.shape[1]]
    ids = torch.stack([one.argmax(dim=0) for one in logits])
    return ids.gather(0, choice[None])[0]


if __name__ == "__main__":
    main()
