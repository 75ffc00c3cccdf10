"""The evaluation a report shows: one that is there, else one that is made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foveate.errors import ImageReadError, reason_of
from foveate.files import write_text
from foveate.inference.score import MapFiles
from foveate.reporting.report.state import RunState
from foveate.runs.evaluate import evaluate_run
from foveate.runs.evaluation_plan import EvaluationOptions
from foveate.texts import read_tree, sealed

FOLDER = "evaluation"  # of what is made for the report, in its own folder


@dataclass(frozen=True, slots=True)
class ShownEvaluation:
    """Scores of a split, and maps of its images.

    Attributes:
        split: "train", "val" or "test".
        file: where the scores are.
        tree: what is in it.
        maps: folder of the maps; None where some are missing.
        up_to_date: whether it was made after the weights.
    """

    split: str
    file: Path
    tree: dict[str, Any]
    maps: Path | None
    up_to_date: bool

    @classmethod
    def read(cls, file: Path, state: RunState) -> ShownEvaluation | None:
        """An evaluation by its file, with the maps beside it; None where there is none.

        Raises:
            ImageReadError: when the file is no evaluation.
        """
        if not file.exists():
            return None
        tree = read_tree(file, ImageReadError, "remove it, or evaluate again with --overwrite", ours=True)
        try:
            names = [str(image["name"]) for image in tree["images"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ImageReadError(
                f"{file} is no result of `foveate evaluate` ({reason_of(error)}); remove it"
            ) from error
        maps = file.with_name(f"{file.stem}-maps")
        complete = all(_is_complete(MapFiles.in_folder(maps, name)) for name in names)
        up_to_date = file.stat().st_mtime >= state.newest_weights
        return cls(file.stem, file, tree, maps if complete else None, up_to_date)


def find_evaluation(state: RunState, split: str, folder: Path) -> ShownEvaluation | None:
    """The most useful evaluation there is: of the present weights before others, with maps before without.

    Args:
        state: of the run.
        split: "train", "val" or "test".
        folder: of the report.
    """
    files = (state.run.evaluation(split), folder / FOLDER / f"{split}.json")
    found = [one for one in (ShownEvaluation.read(file, state) for file in files) if one is not None]
    return max(found, key=lambda one: (one.up_to_date, one.maps is not None), default=None)


def make_evaluation(
    state: RunState,
    split: str,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    processes: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> ShownEvaluation:
    """Evaluate a split with maps, into the folder of the report.

    Args:
        state: of the run.
        split: "train", "val" or "test".
        folder: of the report.
        device: see `evaluate_run`.
        processes: see `evaluate_run`.
        on_progress: see `evaluate_run`.

    Raises:
        Those of `evaluate_run`.
    """
    file = folder / FOLDER / f"{split}.json"
    maps = file.with_name(f"{split}-maps")
    options = EvaluationOptions(maps=maps, overwrite=True)
    evaluation = evaluate_run(
        state.run.path, split, options, device=device, processes=processes, on_progress=on_progress
    )
    tree = evaluation.tree()
    write_text(file, sealed(tree), overwrite=True)
    return ShownEvaluation(split, file, tree, maps, up_to_date=True)


def _is_complete(files: MapFiles) -> bool:
    return all(path.exists() for path in (files.loss, files.iou, files.scales, files.passes, files.classes))
