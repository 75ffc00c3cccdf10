"""The history of a run: metrics.csv with a row for each logged step, and maps of the foveation as training went on."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from foveate.errors import ConfigError, ImageReadError, translated
from foveate.files import written
from foveate.geometry import FloatArray, Window
from foveate.texts import read_text

_MOST_BYTES = 256 << 20
_REMEDY = "remove it; the history of the training is then lost"


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, without the columns that a row has no value for.

    Raises:
        ConfigError: when it holds something else.
    """
    return [{key: _number(text, path) for key, text in row.items() if text} for row in text_rows(path)]


def _number(text: str, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{path} holds {text[:40]!r} where a number is expected; {_REMEDY}") from None


def text_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the file, each of a whole step, without a last one that was cut off by a kill."""
    if not path.is_file():
        return []
    text = read_text(path, ConfigError, _REMEDY, _MOST_BYTES)
    with translated(ConfigError, f"{path} is damaged", _REMEDY):
        rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if None not in row.values()]
        for row in rows:
            if None in row or str(int(row["step"])) != row["step"]:
                raise ValueError(f"a row does not fit its columns: {list(row.values())[:3]}")
    return rows


FOLDER = "foveation"
MOST_STEPS = 64  # at about 50 kB each
_MOST_UNPACKED = 1 << 30  # bytes of a file
_NAME = re.compile(r"step-(\d+)\.npz")


@dataclass(frozen=True, slots=True)
class FoveationMap:
    """What the policy chose for a part of an image after some steps of training.

    Attributes:
        step: optimiser steps done.
        name: stem of the image.
        window: the part of the image, level-0 pixels; it may end outside, at the last cell.
        probabilities: (S, h, w) of every field of view, float32; h and w at most 128, means over cells.
    """

    step: int
    name: str
    window: Window
    probabilities: FloatArray


def kept_steps(folder: Path) -> list[tuple[int, Path]]:
    """Steps and files of the maps in a folder, in order; empty where there is none."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.npz"))
    return sorted((int(match[1]), path) for match, path in found if match)


def read_maps(path: Path) -> list[FoveationMap]:
    """The maps of one step, one for each image.

    Raises:
        ImageReadError: when the file is damaged.
    """
    with translated(ImageReadError, f"the foveation map {path} is damaged", "remove it"):
        with ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MOST_UNPACKED:
                raise ValueError("it would unpack to more than a gigabyte")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            step, names, windows = int(arrays["step"]), arrays["names"].tolist(), arrays["windows"].tolist()
            maps = [arrays[f"probabilities_{i}"].astype(np.float32) for i in range(len(names))]
        places = (Window(*window) for window in windows)
        return [FoveationMap(step, *one) for one in zip(names, places, maps, strict=True)]


def thin_out(folder: Path, most: int = MOST_STEPS) -> None:
    """Remove maps until at most `most` are left, each time the one whose neighbours in time are the closest."""
    kept = kept_steps(folder)
    while len(kept) > max(2, most):
        gaps = [kept[i + 1][0] - kept[i - 1][0] for i in range(1, len(kept) - 1)]
        kept.pop(1 + int(np.argmin(gaps)))[1].unlink()


def write_maps(path: Path, maps: Sequence[FoveationMap]) -> None:
    """Keep the maps of one step, those of one image each."""
    arrays: dict[str, Any] = {f"probabilities_{i}": one.probabilities.astype(np.float16) for i, one in enumerate(maps)}
    windows = [[one.window.top, one.window.left, one.window.height, one.window.width] for one in maps]
    with written(path, overwrite=True) as partial:
        names = np.array([one.name for one in maps])
        np.savez_compressed(partial, step=maps[0].step, names=names, windows=np.array(windows), **arrays)
