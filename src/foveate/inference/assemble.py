"""Put the stored blocks of an image together: one pass in a fixed order; and sum up what was done."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from foveate.data.sections import ClassConfig
from foveate.devices import CostMeter, PeakMemory
from foveate.errors import ConfigError, ImageReadError, OutputWriteError, StoredBlockError
from foveate.files import checksum, files_in
from foveate.geometry import IntArray, Window
from foveate.inference.plan import BlockGrid
from foveate.inference.source import PixelSource
from foveate.inference.store import BlockStore
from foveate.inference.worker import Work
from foveate.tiff.raster import Layers
from foveate.writers.outputs import OutputSpec, write_outputs


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
    def in_folder(cls, folder: Path, stem: str) -> Self:
        """The files for an image of this stem."""
        names = ("classes.tif", "fov.tif", "preview.png", "json")
        return cls(*(folder / f"{stem}.{name}" for name in names))

    @property
    def passes(self) -> Path:
        """Map of the passes, see `foveate.looks.passes.PassMap`."""
        return self.folder / f"{self.stem}.passes.tif"

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


class Assembly:
    """Writes the results of one image from its store, and counts what goes by.

    Args:
        store: holds every block.
        grid: the blocks.
        before_each: called before every block; what it raises stops the writing, and no result is there then.
        at_the_end: called after the last block, likewise.

    Attributes:
        class_pixels: (C,) pixels of each class.
        passes: patches that went through the network.
        pixels: that were looked at.
        skipped: passes that were not made outside the area.
        peak: memory of the process that needed most.
        failed: the blocks that could not be read, and why.
        results: bytes and checksum of everything that was written, by its name.
    """

    def __init__(
        self,
        store: BlockStore,
        grid: BlockGrid,
        classes: int,
        before_each: Callable[[], None],
        at_the_end: Callable[[], None],
    ) -> None:
        self._store, self._grid, self._before_each, self._at_the_end = store, grid, before_each, at_the_end
        self.class_pixels: IntArray = np.zeros(classes, np.int64)
        self.passes, self.pixels, self.skipped = 0, 0, 0
        self.peak = PeakMemory(0.0, 0.0)
        self.failed: list[tuple[Window, str]] = []
        self.results: dict[str, Any] = {}

    def write(self, spec: OutputSpec) -> None:
        """Write everything that is asked for; it appears under its names once all is complete.

        Raises:
            OutputWriteError: when writing fails; the blocks are kept.
            StoredBlockError: when a block was damaged or changed since it was stored.
            ImageReadError: when not one block could be read.
        """
        try:
            self.results = {path.name: _seal(path) for path in write_outputs(self._blocks(), spec)}
        except OutputWriteError as error:
            raise OutputWriteError(
                f"{error}; all blocks are stored in {self._store.path}. Fix this and repeat the command with --resume"
            ) from error

    def _blocks(self) -> Iterator[tuple[Window, Layers]]:
        for number in range(len(self._grid)):
            self._before_each()
            block = self._store.get(number)
            if block.window != self._grid[number]:
                raise StoredBlockError(
                    f"block {number} in {self._store.path} belongs to another position: {block.window}"
                )
            self.class_pixels += np.array(block.class_pixels, np.int64)
            self.passes += block.passes
            self.pixels += block.looked_at
            self.skipped += block.skipped
            self.peak = PeakMemory(*map(max, self.peak, block.peak))
            if block.failure:
                self.failed.append((block.window, block.failure))
            yield block.window, block.layers
        if self.failed and not self.pixels:
            raise ImageReadError(
                f"none of the {len(self.failed)} blocks could be read, so no class map is written; the first: "
                f"{self.failed[0][1]}"
            )
        self._at_the_end()


def check_results(folder: Path, names: Sequence[str], summary: Mapping[str, Any]) -> None:
    """Compare results with what the summary that was written last says of them.

    Args:
        folder: of the results.
        names: of those that must be there.
        summary: its `files` hold `Assembly.results`.

    Raises:
        ConfigError: naming those that are missing, cut short or changed.
    """
    noted = summary.get("files")
    noted = noted if isinstance(noted, dict) else {}
    wrong = [f"{name} {problem}" for name in names if (problem := _problem(folder / name, noted.get(name)))]
    if wrong:
        raise ConfigError(
            f"the results in {folder} have changed since they were written: {', '.join(wrong)}. Restore them, or write "
            "them again with --overwrite"
        )


def _seal(path: Path) -> dict[str, Any]:
    """Bytes and checksum of a result, which may be a folder."""
    files = files_in(path)
    return {"bytes": sum(file.stat().st_size for file in files), "sha256": checksum(files, path.parent)}


def _problem(path: Path, noted: Any) -> str | None:
    if not path.exists():
        return "is missing"
    found = _seal(path)
    if found == noted:
        return None
    if isinstance(noted, dict) and found["bytes"] != noted.get("bytes"):
        return f"has {found['bytes']} bytes instead of {noted.get('bytes')}"
    return "has changed since" if noted else "is not in the summary"


def summary_tree(
    assembly: Assembly, cost: CostMeter, found: Collection[int], work: Work, classes: Sequence[ClassConfig]
) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        assembly: of the results, written.
        cost: its clock; passes and pixels are those of the whole image, seconds those of this run.
        found: numbers of the blocks that an earlier run had stored.
        work: what was done.
        classes: in the order of the class ids.
    """
    cost.add(assembly.passes, assembly.pixels, assembly.peak)
    tree, source, model = cost.tree(), work.source, work.segmenter
    new = source.size.pixels - sum(work.grid[number].size.pixels for number in found)
    return {
        "image": source.reader.path.name,
        "image_path": _place(source),
        "height": source.size.height,
        "width": source.size.width,
        "fields_of_view": list(model.scales.fields_of_view),
        "estimator": model.estimator.tree(),
        "class_pixels": {c.name: int(n) for c, n in zip(classes, assembly.class_pixels, strict=True)},
        **tree,
        "share_looked_at": assembly.pixels / source.size.pixels,
        "skipped_passes": assembly.skipped,
        "megapixels_per_second": new / 1e6 / tree["seconds"],
        "resumed_blocks": len(found),
        "share_unreadable": sum(window.size.pixels for window, _ in assembly.failed) / source.size.pixels,
        "failed_blocks": [_failed(window, reason) for window, reason in assembly.failed],
    }


def _failed(window: Window, reason: str) -> dict[str, Any]:
    return {"window": [window.top, window.left, window.height, window.width], "reason": reason}


def _place(source: PixelSource) -> str:
    """Where the image lies, so that a viewer finds it."""
    path = source.reader.path
    return str(path.resolve()) if path.exists() else source.reader.location
