"""What predicts the blocks of one image: its widest looks first, then closer ones where that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.cascade import CascadeSegmenter
from foveate.data.area import Area
from foveate.geometry import Window
from foveate.inference.block import FinishedBlock
from foveate.inference.config import InferenceConfig
from foveate.inference.field import FoveationField, fusion_weights
from foveate.inference.passes import PreparedBlock, SharedPasses, prepare_block
from foveate.inference.plan import LookPlan
from foveate.inference.runner import Seen
from foveate.inference.source import PassGroup, PixelSource, group_of, inputs_of, read_regions
from foveate.inference.stitch import Canvases, Stitcher, add_outputs
from foveate.looks import pyramid
from foveate.looks.passes import Begun, BlockArea, Foveation, Passes, PerTarget, Planner, Undecided, begun_in
from foveate.networks.cascade import Context
from foveate.patches.extraction import Windows
from foveate.segmenter import FoveatedSegmenter

# Wide looks that set the price; as many as fit are kept, so that they are not paid for twice.
SURVEYED = 256
_ALL = -1.0  # a price that every look pays

# Level, top and left of a support.
_Key = tuple[int, int, int]


class Predictor:
    """Predicts blocks of one image, level by level; the result of one does not depend on the others.

    A pyramid passes the widest looks everywhere, and closer ones where their gain is above the price. The gain is the
    uncertainty of the widest look there, summed over the area that the closer one covers: a look of twice the width has
    four times the area, and pays earlier. With a budget, a survey of the image by widest looks (all, or 256 evenly
    spread) finds the price at which the budget is spent; it is a property of the image, so blocks stay independent.
    Without a budget every pass is made: 1 + 1/4 + 1/16 per target for three doubling scales. In a cascade a closer look
    is made only where the next wider one was, and gets its context. A policy that chooses for each target is one level,
    whose scales it names.

    Args:
        copies: of the segmenter, see `Runner`.
        source: the image.
        config: of inference.
        field: the policy's logits of this image.
        reading: runs what reads the image, in the thread that it belongs to.
        beside: runs the network on a processor, while its last batch is put together.
        area: what is looked at; None for everything. A budget is spent inside it.

    Raises:
        ConfigError: when a look has no field of view of the model, those of a cascade are not one of each field of
            view, or the budget is below the least possible.
    """

    def __init__(
        self,
        copies: Sequence[FoveatedSegmenter],
        source: PixelSource,
        config: InferenceConfig,
        field: FoveationField,
        reading: Executor,
        beside: Executor,
        area: Area | None = None,
    ) -> None:
        segmenter = copies[0]
        self._segmenter, self._source, self._config, self._field = segmenter, source, config, field
        self._reading, self._area, self._canvases = reading, area, Canvases()
        self._plan = LookPlan.of(config, segmenter.estimator, segmenter.scales)
        self._cascaded = isinstance(segmenter, CascadeSegmenter)
        if self._cascaded:
            self._plan.check_cascade()
        self._shared = SharedPasses(copies, source, config, beside)
        self._unpaid, self._price = 0, _ALL
        if not self._plan.pyramid:
            self._planner: Planner = PerTarget(source.size, self._plan.target, config.overlap, segmenter.estimator)
            self._stitching, self._widest = config, 0
            self._by_probability = segmenter.estimator.walk.by_probability
            return
        self._grid, self._widest = self._plan.grid(source.size), len(self._plan.looks) - 1
        self._planner = _Roots(self._grid, partial(self._passes, self._widest))
        # The supports of a look are disjoint; falling off at their rims would hand those back to the wider look.
        self._stitching, self._by_probability = config.model_copy(update={"blending": "none"}), True
        budget = config.budget or segmenter.estimator.walk.budget
        if budget != "all":
            self._price = self._find_price(budget)

    def reach(self, block: Window) -> int:
        """How far supports that begin in a block may reach beyond it, level-0 pixels."""
        root = self._plan.root
        nested = self._plan.pyramid and not any(place % root for place in (block.top, block.left))
        return 0 if nested and not block.height % root and not block.width % root else self._plan.sides[-1]

    def prepare(self, block: Window, area: BlockArea | None = None) -> PreparedBlock:
        """Plan the first looks at a block and read what they see; called in the thread that the reader belongs to.

        Args:
            block: level-0 pixels.
            area: what is looked at, one pixel of the block at least; None for everything.
        """
        known = self._known if self._plan.pyramid else None
        made = prepare_block(block, self._planner, self._field, self._source, self._segmenter.scales, area, known)
        if not self._plan.pyramid:
            return made
        weights = fusion_weights(block, self._config.fusion, self._plan.scales, self._field)
        return made._replace(weights=weights.to(self._source.device))

    def leave_out(self, area: BlockArea) -> FinishedBlock:
        """Count the passes that begin in a block of which nothing is looked at; called in the thread of the reader.

        Where no pass is made, as many are skipped as for equal logits: the policy is not asked. Closer looks of a
        pyramid are not counted: where they would be is not known without the wider ones.
        """
        foveation = self._field if area.around.any() else Undecided(len(self._segmenter.scales))
        begun = begun_in(self._planner.passes(area.block, foveation), area.block, area)
        plan = self._plan.map.shares(area.block, self._shares(begun, self._widest))
        return FinishedBlock(area.block, None, begun.passes, plan, skipped=begun.skipped)

    def predict(self, block: PreparedBlock, ahead: Callable[[], PreparedBlock | None]) -> FinishedBlock:
        """Look widely, choose where to look closer, do so, and stitch.

        Args:
            block: what `prepare` made.
            ahead: gives what it made of the next block, once that is read; None where there is none.
        """
        stitcher = Stitcher(block.window, self._source.device, self._stitching.blending, self._canvases)
        found = _Found()
        self._look(block, block.groups, self._widest, found, stitcher, ahead)
        made, count = self._shares(block.begun, self._widest), self._paid(block.begun)
        looked: list[tuple[int, Windows | None]] = [(self._widest, None)]
        for level in reversed(range(self._widest)):
            paying = self._paying(block, found, level)
            begun = begun_in([paying], block.window, block.area)
            made, count = [*made, *self._shares(begun, level)], count + begun.passes
            met = paying if block.area is None else paying.select(block.area.meets(paying.supports))
            group = self._reading.submit(group_of, met, self._source, self._segmenter.scales).result()
            self._look(block, [group], level, found, stitcher)
            looked.append((level, met.supports))
        stitched = stitcher.result(block.area and block.area.inside)
        return FinishedBlock(
            block.window,
            self._segmenter.membership.as_logits(stitched) if self._by_probability else stitched,
            count,
            self._plan.map.shares(block.window, made),
            self._counted(block, looked),
            block.begun.skipped,
            release=partial(self._canvases.give_back, stitcher.canvas),
        )

    def _look(
        self,
        block: PreparedBlock,
        groups: list[PassGroup],
        level: int,
        found: _Found,
        stitcher: Stitcher,
        ahead: Callable[[], PreparedBlock | None] = lambda: None,
    ) -> None:
        """Make the passes of a level and stitch them: means of logits, or of probabilities."""
        weights = None if block.weights is None else block.weights[level]
        context = partial(self._context, found, level)
        for passes, seen in self._shared.outputs(block.window, groups, level, ahead, context):
            add_outputs(
                stitcher, passes, seen.logits, self._segmenter,
                by_probability=self._by_probability, pixel_weights=weights,
            )  # fmt: skip
            if seen.handed is not None and level:
                keys = passes.supports.corners
                found.handed |= {(level, *key): handed for key, handed in zip(keys, seen.handed, strict=True)}
            if level == self._widest and self._price != _ALL:
                found.entropies.append([self._entropy(seen.logits, closer) for closer in range(level)])

    def _paying(self, block: PreparedBlock, found: _Found, level: int) -> Passes:
        """The looks of one level that pay, among those that meet the block."""
        roots = block.groups[0].passes.supports
        supports = self._grid.inside(roots, level)
        inside = block.window.intersection(Window.of(self._source.size)) or block.window
        pays = pyramid.share_inside(supports, inside) > 0
        if self._price != _ALL:
            entropy = torch.cat([some[level] for some in found.entropies]).cpu()
            pays &= pyramid.gains_of(entropy, supports, self._grid.sides[0], self._source.size) > self._price
        if self._cascaded:
            around = self._around(supports, level + 1)
            pays &= torch.tensor([key in found.handed for key in around], dtype=torch.bool)
        return self._passes(level, supports).select(pays)

    def _paid(self, begun: Begun) -> int:
        """How many of the first passes count here: those of a survey were counted all at once."""
        kept = sum(int(self._known(passes).sum()) for passes in begun.made) if self._plan.pyramid else 0
        count, self._unpaid = begun.passes - kept + self._unpaid, 0
        return count

    def _shares(self, begun: Begun, level: int) -> list[tuple[Windows, Tensor]]:
        """Where passes are used, and what each look of the map has of them."""
        if not self._plan.pyramid:
            return [(passes.supports, passes.scale_weights * passes.weight[:, None]) for passes in begun.made]
        look = torch.eye(len(self._plan.looks))[level]
        return [(passes.supports, look.expand(len(passes), -1)) for passes in begun.made]

    def _counted(self, block: PreparedBlock, looked: Iterable[tuple[int, Windows | None]]) -> Tensor | None:
        """How much each scale counted at each pixel (S, h, w) of a pyramid, by the supports of each level's looks."""
        if block.weights is None:
            return None
        counted = torch.zeros(len(self._segmenter.scales), block.window.height, block.window.width)
        for level, supports in looked:
            share = block.weights[level].mean(dim=0).cpu()
            counted[self._plan.scales[level]] += (
                share if supports is None else share * pyramid.covered(supports, block.window)
            )
        return counted if block.area is None else counted * torch.from_numpy(block.area.inside)

    def _find_price(self, budget: float | str) -> float:
        """Look widely at an even part of the image, and see what the gains are."""
        image, target, area = self._source.size, self._plan.target, self._area
        roots = self._reading.submit(pyramid.roots_of, self._grid, area).result()
        affordable = self._reading.submit(pyramid.passes_allowed, budget, roots, image, target, area).result()
        patches = affordable // self._config.passes_of_a_patch
        allowed, total = pyramid.closer_looks(patches, roots, image), len(roots.top)
        if total == 0:
            return _ALL
        chosen = torch.unique(torch.linspace(0, total - 1, min(total, SURVEYED)).round().long())
        part = self._passes(self._widest, Windows(roots.top[chosen], roots.left[chosen], roots.side))
        size = self._config.batch_size
        batches = [part.select(slice(i, i + size)) for i in range(0, len(part), size)]
        looked = zip(batches, self._shared.at_once(self._looked_apart, batches), strict=True)
        gains = [self._surveyed(passes, seen) for passes, seen in looked]
        self._unpaid = len(chosen)
        return pyramid.price_for(torch.cat(gains), allowed * len(chosen) // total)

    def _looked_apart(self, passes: Passes) -> Seen:
        inputs = self._reading.submit(self._read_apart, passes).result()
        return self._shared.run(inputs, passes.scale_weights)

    def _surveyed(self, passes: Passes, seen: Seen) -> Tensor:
        """The gains of all closer looks within a batch of widest ones, which are kept where there is room."""
        self._shared.keep(self._widest, passes, seen)
        gains, image = [torch.empty(0)], self._source.size
        for level in range(self._widest):
            supports = self._grid.inside(passes.supports, level)
            wanted = self._reading.submit(pyramid.met_parts, passes.supports, supports, image, self._area).result()
            entropy = self._entropy(seen.logits, level).cpu()
            gains.append(pyramid.gains_of(entropy, supports, self._grid.sides[0], image)[wanted])
        return torch.cat(gains)

    def _read_apart(self, passes: Passes) -> list[Tensor]:
        """The inputs of passes far apart: each is read alone, as one region of all would be the image."""
        scales, alone = self._segmenter.scales, [passes.select(slice(i, i + 1)) for i in range(len(passes))]
        regions = [read_regions(one, self._source, scales) for one in alone]
        estimator = self._segmenter.estimator
        return [inputs_of(one, some, scales, estimator)[0] for one, some in zip(alone, regions, strict=True)]

    def _entropy(self, outputs: Tensor, level: int) -> Tensor:
        """Of the widest looks' outputs (N, C, P', P'), over every look of a level (N * parts ** 2), in nats."""
        kept = self._grid.sides[-1] / self._plan.looks[-1].view
        return pyramid.entropy_of_parts(outputs, kept, self._grid.parts(level), self._segmenter.membership).flatten()

    def _passes(self, level: int, supports: Windows) -> Passes:
        one_hot = torch.eye(len(self._segmenter.scales))[self._plan.scales[level]].expand(len(supports.top), -1)
        return Passes(supports, one_hot, torch.ones(len(supports.top)))

    def _known(self, passes: Passes) -> Tensor:
        """Which of the widest looks were surveyed and kept."""
        return torch.tensor(self._shared.has(self._widest, passes.supports), dtype=torch.bool)

    def _around(self, supports: Windows, level: int) -> list[_Key]:
        """The support of a wider level that each of N supports lies in."""
        side = self._plan.sides[level]
        return [(level, top // side * side, left // side * side) for top, left in supports.corners]

    def _context(self, found: _Found, level: int, passes: Passes) -> Context | None:
        """What the next wider looks of a cascade saw around some passes."""
        if not self._cascaded or level == self._widest:
            return None
        keys = self._around(passes.supports, level + 1)
        tops, lefts = (torch.tensor([key[axis] for key in keys]) for axis in (1, 2))
        view, wide = self._plan.looks[level].view, self._plan.looks[level + 1].view
        outer = Windows(tops, lefts, self._plan.sides[level + 1]).centred(wide)
        inner = passes.supports.centred(view)
        corners = torch.stack([inner.top - outer.top, inner.left - outer.left], dim=1) / wide
        seen = torch.stack([found.handed[key] for key in keys])
        return Context(seen, corners.to(seen.device), view / wide)


class _Found:
    """What the looks at a block found: what those of a cascade hand on, and where the widest are unsure."""

    def __init__(self) -> None:
        self.handed: dict[_Key, Tensor] = {}
        self.entropies: list[list[Tensor]] = []  # of some of the widest looks, by level


class _Roots(NamedTuple):
    """Plans the widest looks of a pyramid."""

    grid: pyramid.PyramidGrid
    made: Callable[[Windows], Passes]

    def passes(self, block: Window, foveation: Foveation) -> list[Passes]:
        return [self.made(self.grid.roots_in(block))]
