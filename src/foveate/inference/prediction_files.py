"""Where the results of a prediction lie, and what those that are there were made with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveate.config_base import ConfigTree
from foveate.errors import ConfigError
from foveate.texts import read_tree

# What a run settles before it starts, by the memory it may take and by the speed of the network.
SIZES = ("block_size", "batch_size")
SPENDING = ("planner", "looks", "fusion", "budget")


@dataclass(frozen=True, slots=True)
class PredictionFiles:
    """Where the results for one image lie.

    Attributes:
        classes: class map, uint8, tiled, with overviews, colour table and the image's georeference.
        fov: expected field of view per cell, float32, level-0 pixels.
        preview: picture for people.
        summary: JSON with cost and class shares.
    """

    classes: Path
    fov: Path
    preview: Path
    summary: Path

    @classmethod
    def in_folder(cls, folder: Path, stem: str) -> PredictionFiles:
        """The files for an image of this stem."""
        names = ("classes.tif", "fov.tif", "preview.png", "json")
        return cls(*(folder / f"{stem}.{name}" for name in names))

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.summary.parent

    @property
    def stem(self) -> str:
        """What the names start with."""
        return self.summary.name.removesuffix(".json")

    @property
    def store(self) -> Path:
        """Folder of the finished blocks, there until the results are."""
        return self.folder / f".{self.stem}.partial"


def on_disk(files: PredictionFiles) -> ConfigTree | None:
    """What the interrupted run whose blocks are there had settled, or that of the results; None without.

    Values of `SIZES` and `SPENDING` by name.
    """
    for path in (files.store / "plan.json", files.summary):
        try:
            tree = read_tree(path, ConfigError, "start anew with --overwrite")
            inference = tree.get("plan", tree)["inference"]
            return {name: inference[name] for name in (*SIZES, *SPENDING)}
        except (ConfigError, KeyError, TypeError, AttributeError):
            continue
    return None
