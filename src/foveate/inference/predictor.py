"""What predicts the blocks of one image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from foveate.data.area.area import Area, AreaPart
from foveate.geometry import Window
from foveate.inference.config import InferenceConfig
from foveate.inference.field import FoveationField, fusion_weights
from foveate.inference.passes import (
    PassGroup,
    PreparedBlock,
    Runner,
    SharedPasses,
    add_outputs,
    mixed_patches,
    prepare_block,
    read_regions,
)
from foveate.inference.plan import LookPlan
from foveate.inference.source import PixelSource
from foveate.inference.stitch import Canvases, Stitcher, stitcher_for
from foveate.looks.passes import Begun, BlockArea, Passes, PerTarget, begun_in, meets
from foveate.looks.pyramid import (
    PyramidGrid,
    closer_looks,
    covered,
    entropy_of_parts,
    gains_of,
    passes_allowed,
    price_for,
    roots_of,
    share_inside,
)
from foveate.patches.extraction import Windows
from foveate.segmenter import FoveatedSegmenter

Prepared = TypeVar("Prepared")


def _keep() -> None:
    """What is not given back is new the next time."""


class FinishedBlock(NamedTuple):
    """A block's result.

    Attributes:
        window: the block, level-0 pixels.
        logits: (C, h, w); None where nothing of the block is looked at.
        passes: patches through the network that are counted for it; those of an image are each counted in one block.
        plan: (L, rows, cols) which looks were made where, see `PassMap.shares`; None where none is.
        scale_weights: (S, h, w) how much each scale counted at each pixel; None where the estimator's own map says so.
        skipped: passes that were not made, as they meet nothing that is looked at; counted in the same way.
        part: what is looked at; None for all.
        release: gives the memory of the logits back, once nothing refers to them any more; need not be called.
    """

    window: Window
    logits: Tensor | None
    passes: int
    plan: Tensor | None = None
    scale_weights: Tensor | None = None
    skipped: int = 0
    part: AreaPart | None = None
    release: Callable[[], None] = _keep

    @property
    def pixels(self) -> int:
        """Pixels that were looked at."""
        return self.window.size.pixels if self.part is None else int(self.part.inside.sum())


class BlockPredictor(Protocol[Prepared]):
    """Predicts blocks; the result of one does not depend on the others."""

    @property
    def reach(self) -> int:
        """How far supports that begin in a block may reach beyond it, level-0 pixels."""
        ...

    def prepare(self, block: Window, area: BlockArea | None) -> Prepared:
        """Read what can be read before the network runs; called in the thread that the reader belongs to.

        Args:
            block: level-0 pixels.
            area: what is looked at, one pixel of the block at least; None for everything.
        """
        ...

    def leave_out(self, area: BlockArea) -> FinishedBlock:
        """Count the passes that begin in a block of which nothing is looked at; called in the thread of the reader."""
        ...

    def predict(self, block: Prepared, ahead: Callable[[], Prepared | None]) -> FinishedBlock:
        """Run the network and stitch.

        Args:
            block: what `prepare` made.
            ahead: gives what it made of the next block, once that is read; None where there is none.
        """
        ...


class TargetPredictor:
    """Predicts blocks of one image with a plan that follows from the foveation alone.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference.
        field: the policy's logits of this image.
    """

    def __init__(
        self,
        segmenter: FoveatedSegmenter,
        source: PixelSource,
        config: InferenceConfig,
        field: FoveationField,
    ) -> None:
        self._canvases = Canvases()
        self._segmenter, self._source, self._config, self._field = segmenter, source, config, field
        self._map = LookPlan.of(config, segmenter.estimator, segmenter.scales).map
        self._planner = PerTarget(source.size, segmenter.scales.target, config.overlap, segmenter.estimator)
        self._passes = SharedPasses(segmenter, source, config)

    @property
    def reach(self) -> int:
        """A target may begin in the last row of a block."""
        return self._segmenter.scales.target

    def prepare(self, block: Window, area: BlockArea | None = None) -> PreparedBlock:
        """Plan a block and read what its passes look at."""
        return prepare_block(block, self._planner, self._field, self._source, self._segmenter.scales, area)

    def leave_out(self, area: BlockArea) -> FinishedBlock:
        """Where no pass is made, as many are skipped as for equal logits: the policy is not asked."""
        foveation = self._field if area.around.any() else _Undecided(len(self._segmenter.scales))
        return self._finished(area.block, begun_in(self._planner.passes(area.block, foveation), area.block, area))

    def predict(self, block: PreparedBlock, ahead: Callable[[], PreparedBlock | None]) -> FinishedBlock:
        """Run the passes and stitch them: means of logits, or logarithms where probabilities are combined."""
        model, config = self._segmenter, self._config
        stitcher = stitcher_for(block.window, self._source.device, config, self._canvases)
        by_probability = model.estimator.walk.by_probability or config.stitching == "max_score"
        for passes, output in self._passes.outputs(block, ahead):
            add_outputs(stitcher, passes, output, model, by_probability=by_probability)
        stitched = stitcher.result(block.area and block.area.inside)
        logits = model.membership.as_logits(stitched) if by_probability else stitched
        return self._finished(block.window, block.begun, logits)._replace(
            release=partial(self._canvases.give_back, stitcher.canvas)
        )

    def _finished(self, block: Window, begun: Begun, logits: Tensor | None = None) -> FinishedBlock:
        made = [(passes.supports, passes.scale_weights * passes.weight[:, None]) for passes in begun.made]
        return FinishedBlock(block, logits, begun.passes, self._map.shares(block, made), skipped=begun.skipped)


class _Undecided:
    """A foveation that prefers no scale."""

    def __init__(self, scales: int) -> None:
        self._scales = scales

    def logits_at(self, rows: Tensor, cols: Tensor) -> Tensor:
        del cols
        return torch.zeros(len(rows), self._scales)


# Wide looks that set the price; as many as fit are kept, so that they are not paid for twice.
SURVEYED = 256
_KEPT_BYTES = 2**28


class PreparedRoots(NamedTuple):
    """A block whose widest windows are read.

    Attributes:
        window: the block, level-0 pixels.
        roots: the widest supports that meet it.
        group: those of them that were not surveyed.
        weights: (L, 1, h, w) how much each look counts at each pixel.
        area: what is looked at; None for everything.
        skipped: widest supports that meet none of it.
    """

    window: Window
    roots: Windows
    group: PassGroup
    weights: Tensor
    area: BlockArea | None
    skipped: int


class PyramidPredictor:
    """Predicts blocks of one image: the widest scale everywhere, the others where their gain is above the price.

    The gain of a closer look is the uncertainty of the wide look there, summed over the area it covers: a look of twice
    the width has four times the area, and pays earlier. With a budget, a survey of the image by wide looks (all, or 256
    evenly spread) finds the price at which the budget is spent; it is a property of the image, so blocks stay
    independent. Without a budget every pass is made: 1 + 1/4 + 1/16 per target for three doubling scales. An estimator
    of one fixed scale passes that one only: its windows tile the image, with a margin of choice.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        config: of inference.
        field: the policy's logits of this image.
        reading: runs what reads the image, in the thread that it belongs to.
        area: what is looked at; None for everything. A budget is spent inside it.

    Raises:
        ConfigError: when a look has no field of view of the model, or the budget is below the least possible.
    """

    def __init__(
        self,
        segmenter: FoveatedSegmenter,
        source: PixelSource,
        config: InferenceConfig,
        field: FoveationField,
        reading: Executor,
        area: Area | None = None,
    ) -> None:
        self._segmenter, self._source, self._config, self._field = segmenter, source, config, field
        self._reading, self._area, self._canvases = reading, area, Canvases()
        self._runner = Runner(segmenter, source, config)
        # The supports of a look are disjoint; falling off at their rims would hand those back to the wider look.
        self._flat = config.model_copy(update={"blending": "none"})
        self._looks = LookPlan.of(config, segmenter.estimator, segmenter.scales).looks
        self._scales = [segmenter.scales.fields_of_view.index(look.view) for look in self._looks]
        self._grid = PyramidGrid.of(source.size, self._looks)
        self._map = LookPlan.of(config, segmenter.estimator, segmenter.scales).map
        self._surveyed: dict[tuple[int, int], Tensor] = {}
        self._unpaid = 0
        budget = config.budget or segmenter.estimator.walk.budget
        self._price = -1.0 if budget == "all" else self._find_price(budget)

    @property
    def reach(self) -> int:
        """Supports are looked for from every block that they meet."""
        return 0

    def prepare(self, block: Window, area: BlockArea | None = None) -> PreparedRoots:
        """Read the widest windows of a block, and how much each scale counts there."""
        all_roots = self._grid.roots_in(block)
        roots = all_roots if area is None else _select(all_roots, area.meets(all_roots))
        new = torch.tensor([key not in self._surveyed for key in keys_of(roots)])
        passes = self._passes(roots, self._widest).select(new)
        weights = fusion_weights(block, self._config.fusion, self._scales, self._field)
        group, skipped = self._with_regions(passes), len(all_roots.top) - len(roots.top)
        return PreparedRoots(block, roots, group, weights.to(self._source.device), area, skipped)

    def leave_out(self, area: BlockArea) -> FinishedBlock:
        """The widest windows are skipped: where the closer ones would be is not known without them."""
        return FinishedBlock(area.block, None, 0, skipped=len(self._grid.roots_in(area.block).top))

    def predict(self, block: PreparedRoots, ahead: Callable[[], PreparedRoots | None]) -> FinishedBlock:
        """Look widely, choose where to look closer, do so, and fuse."""
        del ahead  # supports do not reach into other blocks
        outputs = self._root_outputs(block)
        stitcher = stitcher_for(block.window, self._source.device, self._flat, self._canvases)
        counted = torch.zeros(len(self._segmenter.scales), block.window.height, block.window.width)
        counted[self._scales[self._widest]] = block.weights[self._widest].mean(dim=0).cpu()
        self._stitch(stitcher, block, self._widest, [(self._passes(block.roots, self._widest), outputs)])
        count, self._unpaid = len(block.group.passes) + self._unpaid, 0
        made = [self._made(block.roots, self._widest)]
        for level in reversed(range(self._widest)):
            group = self._closer(block, outputs, level)
            count += len(group.passes)
            made.append(self._made(group.passes.supports, level))
            share = block.weights[level].mean(dim=0).cpu()
            counted[self._scales[level]] += share * covered(group.passes.supports, block.window)
            self._stitch(stitcher, block, level, self._outputs(group))
        inside = block.area and block.area.inside
        if inside is not None:
            counted *= torch.from_numpy(inside)
        plan = self._map.shares(block.window, made)
        logits = self._segmenter.membership.as_logits(stitcher.result(inside))
        return FinishedBlock(
            block.window, logits, count, plan, counted, block.skipped,
            release=partial(self._canvases.give_back, stitcher.canvas),
        )  # fmt: skip

    @property
    def _widest(self) -> int:
        """The last level: levels count the looks, smallest support first."""
        return len(self._looks) - 1

    def _made(self, supports: Windows, level: int) -> tuple[Windows, Tensor]:
        return supports, torch.eye(len(self._looks))[level].expand(len(supports.top), -1)

    def _stitch(
        self, stitcher: Stitcher, block: PreparedRoots, level: int, outputs: Iterable[tuple[Passes, Tensor]]
    ) -> None:
        weights = block.weights[level]
        for passes, output in outputs:
            add_outputs(stitcher, passes, output, self._segmenter, by_probability=True, pixel_weights=weights)

    def _find_price(self, budget: float | str) -> float:
        """Look widely at an even part of the image, and see what the gains are."""
        image, target, area = self._source.size, self._segmenter.scales.target, self._area
        roots = self._reading.submit(roots_of, self._grid, area).result()
        affordable = self._reading.submit(passes_allowed, budget, roots, image, target, area).result()
        patches = affordable // self._config.passes_of_a_patch
        allowed, total = closer_looks(patches, roots, image), len(roots.top)
        if total == 0:
            return -1.0
        chosen = torch.unique(torch.linspace(0, total - 1, min(total, SURVEYED)).round().long())
        part = Windows(roots.top[chosen], roots.left[chosen], roots.side)
        gains = []
        for passes, outputs in self._survey(self._passes(part, self._widest)):
            gains.append(self._all_gains(passes.supports, outputs))
            self._keep(passes.supports, outputs)
        self._unpaid = len(chosen)
        return price_for(torch.cat(gains), allowed * len(chosen) // total)

    def _keep(self, roots: Windows, outputs: Tensor, further: int = 0) -> bool:
        """Keep outputs on the widest supports where there is room, each with so many bytes elsewhere; whether it is."""
        if (len(self._surveyed) + len(outputs)) * (outputs[0].nbytes + further) > _KEPT_BYTES:
            return False
        self._surveyed.update(zip(keys_of(roots), outputs.cpu(), strict=True))
        return True

    def _all_gains(self, roots: Windows, outputs: Tensor) -> Tensor:
        """The gains of all closer looks inside the image and the area, within some widest supports."""
        found = [torch.empty(0)]
        for level in range(self._widest):
            supports = self._grid.inside(roots, level)
            wanted = self._reading.submit(self._in_area, roots, supports).result()
            found.append(self._gains(roots, outputs, level)[wanted])
        return torch.cat(found)

    def _in_area(self, roots: Windows, supports: Windows) -> Tensor:
        """Which of the supports that tile some widest ones meet the image and the area."""
        image = Window.of(self._source.size)
        if self._area is None:
            return share_inside(supports, image) > 0
        met = []
        each = len(supports.top) // len(roots.top)
        for i, (top, left) in enumerate(keys_of(roots)):
            root = Window(top, left, roots.side, roots.side).intersection(image)
            own = _select(supports, slice(i * each, (i + 1) * each))
            met.append(meets(own, root, self._area.part(root).inside) if root else torch.zeros(each, dtype=torch.bool))
        return torch.cat(met)

    def _root_outputs(self, block: PreparedRoots) -> Tensor:
        """The network's output (N, C, P', P') on every widest window of a block, surveyed or new."""
        new = [output for _, output in self._outputs(block.group)]
        following: Iterator[Tensor] = iter(torch.cat(new) if new else ())
        device = self._source.device
        keys = keys_of(block.roots)
        return torch.stack([self._surveyed[k].to(device) if k in self._surveyed else next(following) for k in keys])

    def _closer(self, block: PreparedRoots, outputs: Tensor, level: int) -> PassGroup:
        """The looks of one level that pay, among those that meet the block."""
        supports = self._grid.inside(block.roots, level)
        inside = block.window.intersection(Window.of(self._source.size)) or block.window
        pays = (self._gains(block.roots, outputs, level) > self._price) & (share_inside(supports, inside) > 0)
        pays &= self._may_follow(supports, level)
        if block.area is not None:
            pays &= block.area.meets(supports)
        return self._reading.submit(self._with_regions, self._passes(supports, level).select(pays)).result()

    def _may_follow(self, supports: Windows, level: int) -> Tensor:
        """Whether looks at each of N supports may be made, (N,)."""
        del level
        return torch.ones(len(supports.top), dtype=torch.bool)

    def _outputs(self, group: PassGroup) -> Iterator[tuple[Passes, Tensor]]:
        """The passes batch by batch, and the network's logits (n, C, P', P') over their windows."""
        for start in range(0, len(group.passes), self._config.batch_size):
            batch = group.passes.select(slice(start, start + self._config.batch_size))
            yield batch, self._run(batch, mixed_patches(batch, group.regions, self._segmenter.scales))

    def _run(self, batch: Passes, inputs: Tensor) -> Tensor:
        """The network's logits (n, C, P', P') on the inputs (n, C_in, P, P) of a batch of passes."""
        return self._runner(inputs, batch.scale_weights)

    def _gains(self, roots: Windows, outputs: Tensor, level: int) -> Tensor:
        """Gain of every look (N * parts ** 2) of a level, in nats times narrowest supports inside the image."""
        kept = self._grid.sides[-1] / self._looks[-1].view
        entropy = entropy_of_parts(outputs, kept, self._grid.parts(level), self._segmenter.membership).flatten().cpu()
        return gains_of(entropy, self._grid.inside(roots, level), self._grid.sides[0], self._source.size)

    def _passes(self, supports: Windows, level: int) -> Passes:
        one_hot = torch.eye(len(self._segmenter.scales))[self._scales[level]].expand(len(supports.top), -1)
        return Passes(supports, one_hot, torch.ones(len(supports.top)))

    def _survey(self, passes: Passes) -> Iterator[tuple[Passes, Tensor]]:
        """Outputs, batch by batch, of passes far apart: each is read alone, as one region of all would be the image."""
        for start in range(0, len(passes), self._config.batch_size):
            batch = passes.select(slice(start, start + self._config.batch_size))
            inputs = self._reading.submit(self._read_apart, batch).result()
            yield batch, self._run(batch, inputs)

    def _read_apart(self, passes: Passes) -> Tensor:
        scales = self._segmenter.scales
        alone = [passes.select(slice(i, i + 1)) for i in range(len(passes))]
        return torch.cat([mixed_patches(one, read_regions(one, self._source, scales), scales) for one in alone])

    def _with_regions(self, passes: Passes) -> PassGroup:
        return PassGroup(passes, read_regions(passes, self._source, self._segmenter.scales))


def _select(windows: Windows, rows: slice | Tensor) -> Windows:
    return Windows(windows.top[rows], windows.left[rows], windows.side)


def keys_of(windows: Windows) -> list[tuple[int, int]]:
    """Top and left of each window."""
    return list(zip(windows.top.tolist(), windows.left.tolist(), strict=True))
