"""Work on the blocks of one image: predict them, and put each into the store as soon as it is finished."""

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.config_base import ConfigTree
from foveate.data.area import Area
from foveate.devices import PeakMemory, available_cores
from foveate.errors import DeviceMemoryError, ImageReadError
from foveate.geometry import BoolArray, Window
from foveate.inference.block import FinishedBlock, StoredBlock, block_layers, limit, pass_bytes, unknown_layers
from foveate.inference.config import InferenceConfig
from foveate.inference.field import expected_view, scale_probabilities
from foveate.inference.pipeline import finished_blocks
from foveate.inference.plan import BlockGrid, LookPlan, blocks_abreast
from foveate.inference.source import PixelSource
from foveate.inference.store import BlockStore
from foveate.looks.passes import target_stride
from foveate.looks.pyramid import per_cell
from foveate.membership import Membership
from foveate.segmenter import FoveatedSegmenter
from foveate.tiff.raster import Layers
from foveate.tiff.tiles import Mapped, Tiling

HANDED_OVER = 2**28  # bytes of a block's logits that may wait for being written
WRITERS = max(1, min(4, available_cores()))  # threads that cut, compress and store finished blocks

# What a run settles before it starts, by the memory it may take and by the speed of the network.
SIZES = ("block_size", "batch_size")
SPENDING = ("planner", "looks", "fusion", "budget")


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with every block of an image.

    Attributes:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference.
        grid: the blocks; their corners are multiples of the cell.
        classes: number of classes.
        area: what is looked at.
        strict: stop at a block that cannot be read, instead of leaving it empty.
        tell: told what the user should know.
        tilings: of the outputs that blocks are cut for, by name.
    """

    segmenter: FoveatedSegmenter
    source: PixelSource
    config: InferenceConfig
    grid: BlockGrid
    classes: int
    area: Area
    strict: bool
    tell: Callable[[str], None]
    tilings: Mapping[str, Tiling]


class Worker:
    """Works on blocks of one image.

    Args:
        work: what to do with each.
        store: where they go.
    """

    def __init__(self, work: Work, store: BlockStore) -> None:
        self._work, self._store = work, store
        self._config = work.config
        self._cells: dict[Window, Tensor] = {}
        self._open: dict[Window, int] = {}

    @property
    def _membership(self) -> Membership:
        return self._work.segmenter.membership

    @property
    def open_numbers(self) -> list[int]:
        """Blocks that were begun and are not stored."""
        return list(self._open.values())

    @property
    def settled(self) -> ConfigTree:
        """What others must know to do the same."""
        tree = self._config.tree()
        return {name: tree[name] for name in (*SIZES, *SPENDING)}

    def in_order(self, numbers: Iterable[int], share: float) -> list[int]:
        """Numbers as they are best taken: neighbours after one another, for what they can use of each other's passes.

        Args:
            numbers: of blocks.
            share: of them that come first for other processes, which begin elsewhere; in [0, 1).
        """
        work, model = self._work, self._work.segmenter
        stride = target_stride(model.scales.target, self._config.overlap)
        looks = len(model.estimator.looks(torch.zeros(1, len(model.scales))))
        width = blocks_abreast(work.grid.side, stride, model.scales.patch_size, looks)
        ordered = sorted(numbers, key=lambda number: work.grid.place_in_bands(number, width))
        first = int(share * len(ordered))
        return ordered[first:] + ordered[:first]

    def run(self, numbers: Iterable[int]) -> Generator[int]:
        """Predict and store numbered blocks; where the device's memory does not suffice, in smaller batches.

        Args:
            numbers: which, each asked for when it is begun.

        Yields:
            The number of pixels of every block that was stored and could be read.

        Raises:
            DeviceMemoryError: when even one patch at a time does not fit.
            ImageReadError: when a block cannot be read and that is not allowed.
            OutputWriteError: when a block cannot be stored.
        """
        remaining = iter(numbers)
        while True:
            try:
                yield from self._run(remaining)
            except torch.OutOfMemoryError as error:
                problem = str(error).partition("\n")[0]
            else:
                return
            # Only here, where the error is forgotten, is the memory of the failed batch free again.
            self._halve_batches(problem)
            remaining = chain(self.open_numbers, remaining)

    def _run(self, numbers: Iterable[int]) -> Iterator[int]:
        work = self._work
        finished = finished_blocks(
            work.segmenter,
            work.source,
            self._config,
            blocks=self._begun(numbers),
            area=work.area,
            on_cells=self._cells.__setitem__ if "foveation" in self._config.outputs else None,
            on_unreadable=None if work.strict else self._store_unreadable,
        )
        with closing(finished), self._writing() as submit:
            last: Future[Window] | None = None
            for done in finished:
                # What is large is made small before the next block has its own; else nobody waits for it.
                block = done if handed_over(done.logits) else self._made(done)
                del done
                # One after the other: a run that is stopped here has stored what was told, and nothing else.
                if last is not None:
                    yield self._closed(last)
                last = submit(block)
                del block
            if last is not None:
                yield self._closed(last)

    @contextmanager
    def _writing(self) -> Iterator[Callable[[FinishedBlock | StoredBlock], Future[Window]]]:
        """Stores a block beside what comes next, its tiles compressed by several threads."""
        with (
            ThreadPoolExecutor(WRITERS, thread_name_prefix="tiles") as tiles,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            yield lambda block: writer.submit(self._stored, [block], tiles.map)

    def _begun(self, numbers: Iterable[int]) -> Iterator[Window]:
        for number in numbers:
            window = self._work.grid[number]
            self._open[window] = number
            yield window

    def _closed(self, written: Future[Window]) -> int:
        """Wait until a block is stored; its pixels."""
        window = written.result()
        del self._open[window]
        return window.size.pixels

    def _stored(self, block: list[FinishedBlock | StoredBlock], mapped: Mapped) -> Window:
        """Store the block of a list, which is emptied: its logits are given back before what follows."""
        one = block.pop()
        return self._write(one if isinstance(one, StoredBlock) else self._made(one), mapped)

    def _made(self, done: FinishedBlock) -> StoredBlock:
        """What is stored of a block; the memory of its logits is given back."""
        block = self._kept(done)
        done.release()
        return block

    def _write(self, block: StoredBlock, mapped: Mapped = map) -> Window:
        """Cut and store a block."""
        classes = block.layers["classes"]
        # One after the other: all masks together would be as large as the probabilities.
        masks = classes == 1 if self._membership.overlapping else (classes == i for i in range(self._work.classes))
        counts = [int(np.count_nonzero(mask)) for mask in masks]
        levels = {name: tiling.levels_within(self._work.grid.side) for name, tiling in self._work.tilings.items()}
        tiled = {
            name: tiling.cut(block.window, block.layers[name], levels[name], mapped)
            for name, tiling in self._work.tilings.items()
        }
        number = self._open[block.window]
        self._store.put(number, block._replace(layers={**block.layers, **tiled}, class_pixels=counts))
        return block.window

    def _kept(self, done: FinishedBlock) -> StoredBlock:
        """What is stored of a block, without its logits."""
        if done.logits is None:
            layers = unknown_layers(done.window.size, self._work.classes, self._config.outputs, self._membership)
        else:
            layers = block_layers(done.predicted(), self._config.outputs, self._membership)
        if done.part is not None:
            limit(layers, done.part)
        layers = self._with_cells(layers, done.window, done.scale_weights, done.part)
        layers |= self._plan_layer(done.window, done.plan)
        return StoredBlock(
            done.window, layers, done.passes, PeakMemory.of_this_process(), looked_at=done.pixels, skipped=done.skipped
        )

    def _store_unreadable(self, window: Window, error: ImageReadError) -> None:
        layers = unknown_layers(window.size, self._work.classes, self._config.outputs, self._membership)
        layers |= self._plan_layer(window)
        self._work.tell(f"a block stays empty because its pixels cannot be read: {error}")
        self._write(StoredBlock(window, self._with_cells(layers, window), 0, PeakMemory.of_this_process(), str(error)))
        del self._open[window]

    def _with_cells(
        self, layers: Layers, window: Window, looked: Tensor | None = None, inside: BoolArray | None = None
    ) -> Layers:
        """The layers with the foveation map of the block: as it was looked at, or else as the policy chose.

        Its cells are unknown where the policy saw nothing, or none of their pixels is inside.
        """
        if "foveation" not in self._config.outputs:
            return layers
        model, logits = self._work.segmenter, self._cells.pop(window, None)
        if logits is None:
            cell = model.overview_downsample
            logits = torch.full((len(model.scales), -(-window.height // cell), -(-window.width // cell)), torch.nan)
        if looked is None:
            shares = _only_met(scale_probabilities(logits, model.estimator), inside, model.overview_downsample)
        else:
            shares = per_cell(looked, model.overview_downsample)
        return {**layers, "foveation": expected_view(shares, model.scales).float().numpy()}

    def _plan_layer(self, window: Window, plan: Tensor | None = None) -> Layers:
        """The map of the passes of a block, empty without any."""
        if "passes" not in self._config.outputs:
            return {}
        model = self._work.segmenter
        none_made = LookPlan.of(self._config, model.estimator, model.scales).map.shares(window, [])
        return {"passes": pass_bytes(none_made if plan is None else plan)}

    def _halve_batches(self, problem: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._config.batch_size == 1:
            raise DeviceMemoryError(
                f"one patch at a time does not fit into the memory of {self._work.source.device} ({problem}); use a "
                f"smaller inference.block_size than {self._config.block_size}, or --device cpu"
            )
        self._config = self._config.model_copy(update={"batch_size": self._config.batch_size // 2})
        self._work.tell(
            f"the memory of {self._work.source.device} is too small ({problem}); continuing with "
            f"inference.batch_size={self._config.batch_size}"
        )


def handed_over(logits: Tensor | None) -> bool:
    """Whether the layers of a block are made beside the next block: its logits are in memory for so long."""
    return logits is None or logits.nbytes <= HANDED_OVER


def _only_met(shares: Tensor, inside: BoolArray | None, cell: int) -> Tensor:
    """Shares (S, rows, cols) of cells, not known for those without a pixel that is looked at."""
    if inside is None:
        return shares
    met = F.max_pool2d(torch.from_numpy(inside)[None].float(), cell, ceil_mode=True)[0] > 0
    return torch.where(met, shares, torch.nan)
