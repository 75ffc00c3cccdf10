"""Walk over the blocks of an image: read ahead, predict, hand each finished block on."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.data.area import Area
from foveate.devices import Trimmer, kernels_divided_by, reuse_freed_memory
from foveate.errors import ImageReadError
from foveate.geometry import BoolArray, Window
from foveate.inference.block import FinishedBlock
from foveate.inference.config import InferenceConfig
from foveate.inference.field import FoveationField, TileObserver
from foveate.inference.passes import PreparedBlock
from foveate.inference.plan import BlockGrid, LookPlan
from foveate.inference.predictor import Predictor
from foveate.inference.runner import copies_of, sized
from foveate.inference.source import PixelSource, threaded
from foveate.looks.passes import BlockArea
from foveate.segmenter import FoveatedSegmenter

CellsObserver = Callable[[Window, Tensor], None]
UnreadableObserver = Callable[[Window, ImageReadError], None]


def finished_blocks(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    config: InferenceConfig,
    *,
    blocks: Iterable[Window] | None = None,
    area: Area | None = None,
    on_tile: TileObserver | None = None,
    on_cells: CellsObserver | None = None,
    on_unreadable: UnreadableObserver | None = None,
) -> Generator[FinishedBlock]:
    """Predict an image block by block; memory is bounded by the block, not by the image.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: planner, block size, overlap, blending, batch size, precision.
        blocks: which blocks, in which order; all of them, row by row, by default. The next is asked for, and read,
            before the one before it is predicted.
        area: what is looked at; None for everything. Passes that meet nothing of it are not made, and what is predicted
            for other pixels is of no meaning.
        on_tile: receives the policy's logits tile by tile as they are computed.
        on_cells: receives every block, whose corners are then multiples of the cell, and the policy's logits (S, h, w)
            of its cells; before the block is finished, and in another thread. Not of blocks outside the area.
        on_unreadable: told of a block whose pixels could not be read, which is then left out; without it the error is
            raised.

    Raises:
        ConfigError: when the planner does not fit the fields of view, or the budget is below the least possible.
        ImageReadError: when pixels cannot be read.
    """
    reuse_freed_memory()
    trim = Trimmer()
    config = sized(config, segmenter, source.device)
    plan = LookPlan.of(config, segmenter.estimator, segmenter.scales)
    if blocks is None:
        blocks = BlockGrid(source.size, plan.block_side(config.block_size, 1))
    area = None if area is None or area.is_everything else area
    copies = copies_of(segmenter, source.device)
    with (
        kernels_divided_by(len(copies)),
        threaded(source) as reads,
        ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reading,
        ThreadPoolExecutor(len(copies), thread_name_prefix="network") as beside,
    ):
        field = FoveationField(segmenter, reads, on_tile)
        predictor = Predictor(copies, reads, config, field, reading, beside, area)

        def prepare(block: Window) -> _Ready:
            own = None if area is None else _area_of(area, block, predictor.reach(block))
            part = None if own is None else own.inside
            if own is not None and not own.inside.any():
                return _Ready(part, None, predictor.leave_out(own))
            field.cover(block)
            if on_cells is not None:
                on_cells(block, _cell_logits(block, field))
            return _Ready(part, predictor.prepare(block, own))

        each = config.passes_of_a_patch
        for block, ready, following in _ahead(prepare, blocks, reading):
            try:
                # Nothing here holds on to what was read while the block after the next is being read.
                yield _finished(ready.pop().result(), predictor, partial(_if_readable, following), each)
            except ImageReadError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(block, error)
            trim()


class _Ready(NamedTuple):
    """What is looked at of a block, and what its predictor prepared; or the block left out, where nothing is."""

    part: BoolArray | None
    prepared: PreparedBlock | None
    left_out: FinishedBlock | None = None


def _area_of(area: Area, block: Window, reach: int) -> BlockArea:
    """What is looked at of a block, and around it."""
    grown = Window(block.top, block.left, block.height + reach, block.width + reach)
    return BlockArea(block, area.inside(grown.intersection(Window.of(area.size)) or block))


def _finished(
    ready: _Ready, predictor: Predictor, ahead: Callable[[], PreparedBlock | None], each: int
) -> FinishedBlock:
    """A block, its passes counted as forward passes, `each` for a patch."""
    finished = ready.left_out if ready.prepared is None else predictor.predict(ready.prepared, ahead)
    assert finished is not None  # one of the two is there
    return finished._replace(part=ready.part, passes=finished.passes * each, skipped=finished.skipped * each)


def _cell_logits(block: Window, field: FoveationField) -> Tensor:
    """The policy's logits (S, h, w) of the cells under a block."""
    rows, cols = (
        torch.arange(start, stop, field.grid.cell)
        for start, stop in ((block.top, block.bottom), (block.left, block.right))
    )
    return field.logits_at(*torch.cartesian_prod(rows, cols).T).T.reshape(-1, len(rows), len(cols))


class _Waiting(NamedTuple):
    """A block, the list that its preparation is to be taken from, and that of the block after it."""

    block: Window
    ready: list[Future[_Ready]]
    following: list[Future[_Ready]]


def _ahead(prepare: Callable[[Window], _Ready], blocks: Iterable[Window], reading: Executor) -> Iterator[_Waiting]:
    """Prepare the next block in a thread (readers and torch release the lock) while the present one is predicted."""
    last: _Waiting | None = None
    for block in blocks:
        ready = [reading.submit(prepare, block)]
        if last is not None:
            yield last._replace(following=ready)
        last = _Waiting(block, ready, [])
    if last is not None:
        yield last


def _if_readable(ready: list[Future[_Ready]]) -> PreparedBlock | None:
    """What was prepared, without taking it; None where there is nothing, or nothing that can be read."""
    try:
        return ready[0].result().prepared if ready else None
    except ImageReadError:
        return None


def ready_to_predict(segmenter: FoveatedSegmenter, device: torch.device) -> FoveatedSegmenter:
    """The segmenter in eval mode on a device, in the memory layout in which convolutions are fastest."""
    segmenter = segmenter.eval().to(device)
    return segmenter.to(memory_format=torch.channels_last)
