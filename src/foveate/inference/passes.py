"""Passes of blocks that follow one another: in full batches, each made once for all the blocks that it counts in."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import groupby, islice, takewhile
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.runner import Runner, Seen
from foveate.inference.source import PassGroup, PixelSource, group_of, inputs_of
from foveate.inference.stitch import pixels_at_once
from foveate.looks.passes import Begun, BlockArea, Foveation, Passes, Planner, begun_in
from foveate.networks.cascade import Context
from foveate.patches.extraction import Windows
from foveate.patches.scales import ScaleSet
from foveate.segmenter import FoveatedSegmenter

# Number of the look, top and left of its support.
_Key: TypeAlias = tuple[int, int, int]
_KEPT_BYTES = 2**28  # of passes that are kept for the whole image


class PreparedBlock(NamedTuple):
    """A block that is ready to be predicted.

    Attributes:
        window: the block, level-0 pixels.
        groups: its passes.
        begun: passes that begin in it.
        area: what is looked at; None for everything.
        weights: (L, 1, h, w) how much each look of a pyramid counts at each pixel.
    """

    window: Window
    groups: list[PassGroup]
    begun: Begun
    area: BlockArea | None = None
    weights: Tensor | None = None


def prepare_block(
    block: Window,
    planner: Planner,
    foveation: Foveation,
    source: PixelSource,
    scales: ScaleSet,
    area: BlockArea | None = None,
    known: Callable[[Passes], Tensor] | None = None,
) -> PreparedBlock:
    """Plan a block and read its regions: each pixel once per scale in use, however many patches share it.

    Passes that meet no pixel of the block that is looked at (`area`, None for everything) are left out; for those that
    are `known` nothing is read.
    """
    planned = planner.passes(block, foveation)
    kept = planned if area is None else [passes.select(area.meets(passes.supports)) for passes in planned]
    groups = [group_of(passes, source, scales, known) for passes in kept]
    return PreparedBlock(block, groups, begun_in(planned, block, area), area)


Ahead: TypeAlias = Callable[[], PreparedBlock | None]


class SharedPasses:
    """Makes the passes of blocks that follow one another.

    What reaches beyond its block is kept for the blocks that come later, as long as there is room, and the places that
    are left in a block's last batch are taken by passes of the next one. A pass has the same bits whatever else is in
    its batch, so neither changes a result: what was not kept is made again.

    Args:
        copies: of the segmenter, in eval mode, on the source's device.
        source: the image.
        config: of inference.
        beside: runs the next batches while the last one is put together, as many as there are copies of the segmenter
            (see `Runner`); only on a processor, as a GPU does not keep the one who calls it waiting.
    """

    def __init__(
        self, copies: Sequence[FoveatedSegmenter], source: PixelSource, config: InferenceConfig, beside: Executor
    ) -> None:
        self._copies, self._device, self._image = copies, source.device, source.size
        self._size, self._beside = config.batch_size, beside if source.device.type == "cpu" else None
        self.run = Runner(copies, source, config)
        self._fresh: dict[_Key, _Output] = {}  # made, not yet asked for
        self._coming: deque[_Coming] = deque()
        self._kept = _Kept(config.block_size)
        self._always: dict[_Key, Seen] = {}  # of the whole image

    def outputs(
        self,
        block: Window,
        groups: Sequence[PassGroup],
        first: int,
        ahead: Ahead,
        context: Callable[[Passes], Context | None],
    ) -> Iterator[tuple[Passes, Seen]]:
        """The passes of a block in their order, some of one group at a time, with what the network made of them.

        Args:
            block: level-0 pixels.
            groups: the passes.
            first: number of the first group's look; the others follow.
            ahead: gives the next block, whose groups are numbered alike, or None; asked when a batch has places left.
            context: of a batch.
        """
        passes, number = _passes(groups, first), 0
        while number < len(passes):
            self._start(passes[number:], first, ahead, context)
            while not self._knows(passes[number].key):
                self._fresh |= self._coming.popleft().made()
                self._start(passes[number:], first, ahead, context)
            some = self._known_from(passes, number)
            seen = _joined([self._take(one.key) for one in some])
            number += len(some)
            yield some[0].group.passes.select(slice(some[0].row, some[-1].row + 1)), seen
            for row, one in enumerate(some):
                if self._counts_later(one, block) and one.key not in self._always:
                    self._kept.put(one.key, seen.of(row))

    def at_once(self, work: Callable[[Passes], Seen], batches: Sequence[Passes]) -> Iterator[Seen]:
        """What some work that runs the network makes of batches, in order, as many at a time as there are copies."""
        each = self._beside.map if self._beside else map
        count = len(self._copies)
        for start in range(0, len(batches), count):
            yield from each(work, batches[start : start + count])

    def keep(self, number: int, passes: Passes, seen: Seen) -> None:
        """Keep what the network made of passes for the whole image, if there is room."""
        if (len(self._always) + len(passes)) * seen.of(0).nbytes <= _KEPT_BYTES:
            stored = seen.after(Tensor.cpu)
            self._always |= {(number, *key): stored.of(row) for row, key in enumerate(passes.supports.corners)}

    def has(self, number: int, supports: Windows) -> list[bool]:
        """Which passes of a look are kept for the whole image."""
        return [(number, *key) in self._always for key in supports.corners]

    def _known_from(self, passes: list[_Pass], number: int) -> list[_Pass]:
        """The passes of one group, from a number on, that are made already; not too many."""
        first = passes[number]
        most = max(1, pixels_at_once(self._device) // first.group.passes.supports.side**2)
        some = islice(passes, number, number + most)
        known = list(takewhile(lambda one: one.group is first.group and self._knows(one.key), some))
        if self._device.type != "cpu":
            return known
        # On a processor those that lie together: bringing others together is a copy more.
        fresh = [self._fresh.get(one.key) for one in known]
        apart = (i for i in range(1, len(known)) if not _follows(fresh[i - 1], fresh[i]))
        return known[: next(apart, len(known))]

    def _take(self, key: _Key) -> _Output:
        if key in self._fresh:
            return self._fresh.pop(key)
        kept = self._always.get(key) or self._kept.pop(key)
        return _Output(kept.after(lambda values: values[None].to(self._device)), 0)

    def _knows(self, key: _Key) -> bool:
        return key in self._fresh or key in self._kept or key in self._always

    def _unknown(self, passes: Iterable[_Pass]) -> Iterator[_Pass]:
        coming = {key for one in self._coming for key in one.keys}
        return (one for one in passes if one.key not in coming and not self._knows(one.key))

    def _start(
        self,
        passes: list[_Pass],
        first: int,
        ahead: Ahead,
        context: Callable[[Passes], Context | None],
    ) -> None:
        """Make those of the passes that are not known, then those of the next block, as far as there are threads."""
        while len(self._coming) < len(self._copies) and (batch := self._batch(passes, first, ahead)):
            self._coming.append(self._started(batch, context))

    def _batch(self, passes: list[_Pass], first: int, ahead: Ahead) -> list[_Pass]:
        """Passes to make next. Of the next block alone only a full batch, for a thread that would be idle."""
        batch = list(islice(self._unknown(passes), self._size))
        own, mine = len(batch), {one.key for one in passes}
        wanted = own < self._size if own else len(self._copies) > 1
        if wanted and (following := ahead()) is not None:
            others = (one for one in self._unknown(_passes(following.groups, first)) if one.key not in mine)
            batch += islice(others, self._size - own)
        return batch if own or len(batch) == self._size else []

    def _started(self, batch: list[_Pass], context: Callable[[Passes], Context | None]) -> _Coming:
        alike = [list(some) for _, some in groupby(batch, lambda one: id(one.group))]
        parts = [
            (some[0].group, some[0].group.passes.select(torch.tensor([one.row for one in some]))) for some in alike
        ]
        looking = self._copies[0].scales, self._copies[0].estimator
        inputs = [inputs_of(passes, group.regions, *looking) for group, passes in parts]
        patches = inputs[0] if len(inputs) == 1 else [patch for some in inputs for patch in some]
        weights = torch.cat([passes.scale_weights for _, passes in parts])
        keys = [one.key for one in batch]
        # The network alone: threads of many small operations wait for each other, as one at a time holds Python's lock.
        made = partial(self._made, keys, self.run.filled(patches), len(batch), weights, context(parts[0][1]))
        return _Coming(frozenset(keys), self._beside.submit(made).result if self._beside else made)

    def _made(
        self, keys: list[_Key], filled: Tensor, count: int, weights: Tensor, context: Context | None
    ) -> dict[_Key, _Output]:
        """What the network makes of a batch."""
        seen = self.run.forward(filled, count, weights, context)
        return {key: _Output(seen, row) for row, key in enumerate(keys)}

    def _counts_later(self, one: _Pass, block: Window) -> bool:
        """Whether a pass counts in blocks to the right or below."""
        (_, top, left), side, size = one.key, one.group.passes.supports.side, self._image
        return min(top + side, size.height) > block.bottom or min(left + side, size.width) > block.right


class _Pass(NamedTuple):
    """One row of a group."""

    key: _Key
    group: PassGroup
    row: int


class _Output(NamedTuple):
    """What the network made of a pass: a row of its batch."""

    batch: Seen
    row: int


class _Coming(NamedTuple):
    """A batch that the network is at, or that it makes when asked."""

    keys: frozenset[_Key]
    made: Callable[[], dict[_Key, _Output]]


def _follows(one: _Output | None, other: _Output | None) -> bool:
    return one is not None and other is not None and one.batch is other.batch and one.row + 1 == other.row


def _joined(outputs: list[_Output]) -> Seen:
    """Outputs as one, which is not copied where they follow one another in a batch."""
    batch, start = outputs[0]
    if all(map(_follows, outputs, outputs[1:])):
        return batch.of(slice(start, start + len(outputs)))
    rows = [one.batch.of(one.row) for one in outputs]
    handed = [row.handed for row in rows if row.handed is not None]
    return Seen(torch.stack([row.logits for row in rows]), torch.stack(handed) if handed else None)


class _Kept:
    """Copies of outputs by pass, at most as large as the sums of one block; the oldest are forgotten first."""

    def __init__(self, side: int) -> None:
        self._block, self._pixels = side**2, 0
        self._outputs: OrderedDict[_Key, Seen] = OrderedDict()

    def __contains__(self, key: _Key) -> bool:
        return key in self._outputs

    def put(self, key: _Key, seen: Seen) -> None:
        """Keep a copy of (C, P', P'): as a part of its batch it would keep all of that."""
        self._outputs[key] = seen.after(Tensor.clone)
        self._pixels += seen.logits[0].numel()
        while self._pixels > self._block:
            self._pixels -= self._outputs.popitem(last=False)[1].logits[0].numel()

    def pop(self, key: _Key) -> Seen:
        seen = self._outputs.pop(key)
        self._pixels -= seen.logits[0].numel()
        return seen


def _passes(groups: Sequence[PassGroup], first: int) -> list[_Pass]:
    return [
        _Pass((look, *key), group, row)
        for look, group in enumerate(groups, first)
        for row, key in enumerate(group.passes.supports.corners)
    ]
