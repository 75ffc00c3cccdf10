"""Maps of an evaluated image: loss, IoU, scales and passes by cell, and the predicted classes, coarse enough to see."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from foveate.data.sections import ClassConfig
from foveate.evaluation.score import BlockScore
from foveate.files import refuse_existing
from foveate.geometry import CellGrid, Georeference, LabelArray, Size, Window
from foveate.looks.passes import PassMap
from foveate.membership import Membership
from foveate.tiff.raster import NODATA, RasterSpec, RasterWriter, open_raster
from foveate.writers.outputs import passes_raster


class MapFiles(NamedTuple):
    """Where the maps of one image lie.

    Attributes:
        loss: mean cross entropy per cell, float32, NaN where nothing is labelled.
        iou: mean IoU per cell, float32, NaN where nothing is labelled.
        scales: probability of every field of view per cell, a float32 band each, NaN where the policy was not asked.
        passes: which looks were made where, see `PassMap`.
        classes: predicted class ids at every step-th pixel, uint8, with a colour table; of overlapping classes a band
            of 0 and 1 for each, 255 where nothing was predicted.
        preview: picture for people.
    """

    loss: Path
    iou: Path
    scales: Path
    passes: Path
    classes: Path
    preview: Path

    @classmethod
    def in_folder(cls, folder: Path, stem: str) -> Self:
        """The files for an image of this stem."""
        names = ("loss.tif", "iou.tif", "scales.tif", "passes.tif", "classes.tif", "preview.png")
        return cls(*(folder / f"{stem}.{name}" for name in names))

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` before any work if a map is already there."""
        for path in self:
            refuse_existing(path, overwrite)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What the maps of every image have in common.

    Attributes:
        folder: where they go.
        cell: side of a cell, level-0 pixels.
        fields_of_view: of the scales, level-0 pixels.
        classes: names and colours, in the order of the class ids.
        membership: whether the map of classes has ids, or a band of 0 and 1 for each class.
        passes: the grid of the map of passes.
        overwrite: replace existing maps.
    """

    folder: Path
    cell: int
    fields_of_view: Sequence[int]
    classes: Sequence[ClassConfig]
    membership: Membership
    passes: PassMap
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class MapWriter:
    """Writes what is known about blocks, in any order; made by `open_maps`."""

    loss: RasterWriter
    iou: RasterWriter
    scales: RasterWriter
    passes: RasterWriter
    spec: MapSpec

    def write(self, score: BlockScore) -> None:
        """Write the maps of a block, and the tiles that the policy was asked for meanwhile.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        if score.cells is not None:
            cell = self.spec.cell
            place = Window(score.window.top // cell, score.window.left // cell, *score.cells.loss.shape)
            self.loss.write(place, score.cells.loss)
            self.iou.write(place, score.cells.iou)
        for window, probabilities in score.tiles:
            self.scales.write(window, probabilities)
        pixels = self.spec.passes.pixels_of(score.window)
        if score.plan is not None and pixels is not None:
            self.passes.write(pixels, score.plan)


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
        open_raster(files.passes, passes_raster(size, place, None, spec.passes), overwrite=spec.overwrite) as passes,
    ):
        yield MapWriter(loss, iou, scales, passes, spec)


def write_coarse_classes(
    name: str, prediction: LabelArray, step: int, place: Georeference | None, spec: MapSpec
) -> None:
    """Write the predicted classes at every step-th pixel of an image.

    Raises:
        OutputExistsError: when the file exists and may not be replaced.
        OutputWriteError: when writing fails.
    """
    path, size = MapFiles.in_folder(spec.folder, name).classes, Size(*prediction.shape)
    shown: dict[str, Any] = {"colors": [c.rgb for c in spec.classes]}
    if spec.membership.overlapping:
        unknown, shown = prediction == spec.membership.ignore_index, {"bands": [c.name for c in spec.classes]}
        prediction = np.stack(spec.membership.planes(prediction, len(spec.classes))).astype(np.uint8)
        prediction[:, unknown] = NODATA
    coarse = place.coarser(step) if place else None
    raster = RasterSpec(size, "uint8", coarse, nodata=NODATA, overviews="mode", **shown)
    with open_raster(path, raster, overwrite=spec.overwrite) as writer:
        writer.write(Window.of(size), prediction)
