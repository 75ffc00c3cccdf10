"""The maps of an evaluated image: where it went well, and where the policy looked how wide, as rasters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from foveate.data.config import ClassConfig
from foveate.data.readers.base import Georeference
from foveate.files import refuse_existing
from foveate.geometry import CellGrid, Size, Window
from foveate.inference.evaluation.score_blocks import BlockScore
from foveate.inference.sinks.geotiff import RasterSpec, RasterWriter, open_raster
from foveate.types import LabelArray


@dataclass(frozen=True, slots=True)
class MapFiles:
    """Where the maps of one image lie.

    Attributes:
        loss: mean cross entropy per cell, float32, NaN where nothing is labelled.
        iou: mean IoU per cell, float32, NaN where nothing is labelled.
        scales: probability of every field of view per cell, a float32 band each, NaN where the policy was not asked.
        classes: predicted class ids at every step-th pixel, uint8, with a colour table.
        preview: picture for people.
    """

    loss: Path
    iou: Path
    scales: Path
    classes: Path
    preview: Path

    @classmethod
    def in_folder(cls, folder: Path, stem: str) -> MapFiles:
        """The files for an image of this stem."""
        names = ("loss.tif", "iou.tif", "scales.tif", "classes.tif", "preview.png")
        return cls(*(folder / f"{stem}.{name}" for name in names))

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` before any work if a map is already there."""
        for path in (self.loss, self.iou, self.scales, self.classes, self.preview):
            refuse_existing(path, overwrite)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What the maps of every image have in common.

    Attributes:
        folder: where they go.
        cell: side of a cell, level-0 pixels.
        fields_of_view: of the scales, level-0 pixels.
        classes: names and colours, in the order of the class ids.
        ignore_index: id that stands for what was not predicted.
        overwrite: replace existing maps.
    """

    folder: Path
    cell: int
    fields_of_view: Sequence[int]
    classes: Sequence[ClassConfig]
    ignore_index: int
    overwrite: bool = False


class MapWriter:
    """Writes what is known about blocks, in any order; made by `open_maps`."""

    def __init__(self, loss: RasterWriter, iou: RasterWriter, scales: RasterWriter, cell: int) -> None:
        self._loss, self._iou, self._scales = loss, iou, scales
        self._cell = cell

    def write(self, score: BlockScore) -> None:
        """Write the maps of a block, and the tiles that the policy was asked for meanwhile.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        if score.cells is not None:
            place = Window(score.window.top // self._cell, score.window.left // self._cell, *score.cells.loss.shape)
            self._loss.write(place, score.cells.loss)
            self._iou.write(place, score.cells.iou)
        for window, probabilities in score.tiles:
            self._scales.write(window, probabilities)


@contextmanager
def open_maps(name: str, size: Size, place: Georeference | None, spec: MapSpec) -> Iterator[MapWriter]:
    """Open the maps per cell of an image; they stand under their names once the block ends well.

    Args:
        name: stem of the image.
        size: of the image, level-0 pixels.
        place: of the image.
        spec: folder, cell, fields of view.

    Raises:
        OutputExistsError: when a map exists and may not be replaced.
        OutputWriteError: when writing fails.
    """
    files = MapFiles.in_folder(spec.folder, name)
    files.refuse_existing(spec.overwrite)
    grid = CellGrid(size, spec.cell)
    cells, coarse = Size(grid.rows, grid.cols), place.coarser(spec.cell) if place else None
    views = [f"field of view {view}" for view in spec.fields_of_view]

    def opened(path: Path, bands: Sequence[str]) -> AbstractContextManager[RasterWriter]:
        raster = RasterSpec(cells, "float32", coarse, bands=bands, tags={"cell": str(spec.cell)})
        return open_raster(path, raster, overwrite=spec.overwrite)

    with (
        opened(files.loss, ["mean cross entropy"]) as loss,
        opened(files.iou, ["mean IoU"]) as iou,
        opened(files.scales, views) as scales,
    ):
        yield MapWriter(loss, iou, scales, spec.cell)


def write_coarse_classes(
    name: str, prediction: LabelArray, step: int, place: Georeference | None, spec: MapSpec
) -> None:
    """Write the predicted class ids at every step-th pixel of an image.

    Raises:
        OutputExistsError: when the file exists and may not be replaced.
        OutputWriteError: when writing fails.
    """
    path, size = MapFiles.in_folder(spec.folder, name).classes, Size(*prediction.shape)
    coarse = place.coarser(step) if place else None
    raster = RasterSpec(size, "uint8", coarse, colors=[c.rgb for c in spec.classes], overviews="mode")
    with open_raster(path, raster, overwrite=spec.overwrite) as writer:
        writer.write(Window.of(size), prediction)
