"""Choose on labelled images how a trained run spends a budget: how every way of looking does at some pixels."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Unpack

import torch

from foveate.cascade import CascadeSegmenter
from foveate.data import LabelReader, open_labels, open_sample
from foveate.errors import ConfigError
from foveate.files import refuse_existing, write_text
from foveate.geometry import Size, Window
from foveate.inference.config import PASSES_OF_A_PATCH, InferenceConfig, Tta
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import BlockGrid, block_side
from foveate.inference.source import PixelSource
from foveate.looks import pyramid
from foveate.membership import Membership
from foveate.metrics import confusion_matrix, scores_from
from foveate.patches.extraction import Windows
from foveate.runs.evaluate import SCORES_ONLY, EvaluationPlan, Loading, led, plan_evaluation, shared
from foveate.runs.folder import RunFolder, TrainedRun
from foveate.runs.tuned import Candidate, Looks, Trial, best_of, candidates
from foveate.segmenter import FoveatedSegmenter
from foveate.texts import sealed

BUDGETS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
_MOST_BYTES = 2**30
_CLOSEST = 4


@dataclass(frozen=True, slots=True)
class SampledImage:
    """An image at n x m pixels of a regular grid.

    Attributes:
        size: of the image.
        rows: (n,) level-0 rows of the grid.
        cols: (m,) level-0 columns.
        labels: (n, m).
        membership: how they are read.
    """

    size: Size
    rows: torch.Tensor
    cols: torch.Tensor
    labels: torch.Tensor
    membership: Membership

    def inside(self, window: Window) -> tuple[slice, slice]:
        """The rows and columns of the grid inside a window of the image."""
        rows = torch.searchsorted(self.rows, torch.tensor([window.top, window.bottom])).tolist()
        cols = torch.searchsorted(self.cols, torch.tensor([window.left, window.right])).tolist()
        return slice(*rows), slice(*cols)


def sampling_step(sizes: Sequence[Size], classes: int, looks: int) -> int:
    """Pixels between samples: 4, or more where the samples of all images would take more than 1 GiB."""
    numbers = 2 * classes * looks * sum(size.pixels for size in sizes)
    return max(_CLOSEST, math.ceil(math.sqrt(numbers / _MOST_BYTES)))


def sample_labels(
    labels: LabelReader, size: Size, block_size: int, *, step: int, membership: Membership
) -> SampledImage:
    """The grid of an image, a row and a column every `step` pixels, and what is labelled there."""
    rows, cols = (torch.arange(min(step // 2, side - 1), side, step) for side in (size.height, size.width))
    ids = torch.full((len(rows), len(cols)), membership.ignore_index)
    image = SampledImage(size, rows, cols, ids, membership)
    for window in BlockGrid(size, block_size):
        here, there = image.inside(window)
        read = torch.from_numpy(labels.read(window)).long()
        ids[here, there] = read[rows[here] - window.top][:, cols[there] - window.left]
    return image


def sample_look(
    segmenter: FoveatedSegmenter,
    source: PixelSource,
    image: SampledImage,
    looks: Looks,
    config: InferenceConfig,
    classes: int,
) -> torch.Tensor:
    """Look at an image in one way everywhere, and keep what the closest look predicts at its grid.

    Args:
        segmenter: in eval mode, on the source's device.
        source: the image.
        image: its grid.
        looks: the closest, and of a cascade the wider ones that give it context.
        config: of inference; its planner, looks and budget are replaced.
        classes: number of classes C.

    Returns:
        Probabilities (C, n, m), half precision; zeros in blocks without a label at the grid, which are left out.
    """
    counting = (1.0,) + (0.0,) * (len(looks) - 1)
    alone = config.model_copy(update={"planner": "pyramid", "looks": looks, "budget": "all", "fusion": counting})
    side = block_side(config.block_size, 1, pyramid.PyramidGrid.of(image.size, looks).sides[-1])
    known = image.labels != image.membership.ignore_index
    blocks = (window for window in BlockGrid(image.size, side) if bool(known[image.inside(window)].any()))
    found = torch.zeros(classes, *image.labels.shape, dtype=torch.float16)
    least = torch.finfo(torch.float16).tiny  # what was looked at is told from what was not
    for done in finished_blocks(segmenter, source, alone, blocks=blocks):
        here, there = image.inside(done.window)
        picked = done.predicted()[:, image.rows[here] - done.window.top][:, :, image.cols[there] - done.window.left]
        shares = image.membership.probabilities(picked, dim=0)
        found[:, here, there] = shares.half().clamp(min=least).cpu()
    return found


class Simulation:
    """Looks at sampled images as the pyramid planner would.

    What several budgets or weights have in common is computed once. `target` is the side of one, level-0 pixels.

    Attributes:
        seen: by place of an image and what it was looked at by (`Candidate.made`), probabilities (C, n, m) of
            `sample_look`.
    """

    def __init__(self, images: Sequence[SampledImage], target: int) -> None:
        self._images, self._target = images, target
        self.seen: dict[tuple[int, Looks], torch.Tensor] = {}
        self._gains = cache(self._gains_of)
        self._counts: dict[tuple[int, Candidate, tuple[bytes, ...]], torch.Tensor] = {}

    def outcome(self, candidate: Candidate, budget: float | str) -> tuple[torch.Tensor, int]:
        """What a candidate comes to for a budget: passes per megapixel, "fixed" or "all".

        Returns:
            Counts (C, C) of samples, rows = label, columns = prediction, of overlapping classes (C, 2, 2); and passes.

        The gain of a closer look is the mean entropy of the wide look over the samples of its support; the planner
        takes it over the network's output there, so places on the verge of a closer look may differ.

        Raises:
            ConfigError: when the budget does not pay for the widest look alone.
        """
        found = [self._one(number, candidate, budget) for number in range(len(self._images))]
        return torch.stack([counts for counts, _ in found]).sum(dim=0), sum(passes for _, passes in found)

    def _one(self, number: int, candidate: Candidate, budget: float | str) -> tuple[torch.Tensor, int]:
        image = self._images[number]
        grid = pyramid.PyramidGrid.of(image.size, candidate.looks)
        chosen = self._chosen(number, candidate, grid, budget)
        passes = len(grid.roots.top) + sum(int(supports.sum()) for supports in chosen)
        key = number, candidate, tuple(supports.numpy().tobytes() for supports in chosen)
        if key not in self._counts:  # one look is made by every budget, and large ones pay for all closer ones
            at_samples = [
                made[image.rows // side][:, image.cols // side] for made, side in zip(chosen, grid.sides, strict=False)
            ]
            prediction = self._fused(number, candidate, at_samples)
            membership, classes = image.membership, len(self.seen[number, candidate.made[-1]])
            matrix = confusion_matrix(classes, membership)
            matrix.update(*(membership.answers(one[None], classes) for one in (prediction, image.labels)))
            self._counts[key] = matrix.compute()
        return self._counts[key], passes

    def _fused(self, number: int, candidate: Candidate, where: Sequence[torch.Tensor]) -> torch.Tensor:
        """Labels (n, m) by the weighted mean of the looks; masks (n, m) say where each but the widest was made."""
        membership, everywhere = self._images[number].membership, torch.ones_like(self._images[number].labels)
        total, sums = torch.zeros(()), torch.zeros(())
        # From the widest on, as the planner adds them up.
        for looks, weight, made in list(zip(candidate.made, candidate.fusion, [*where, everywhere], strict=True))[::-1]:
            total = total + weight * made * self.seen[number, looks].float()
            sums = sums + weight * made
        return membership.decided(membership.as_logits(total / sums))

    def _chosen(
        self, number: int, candidate: Candidate, grid: pyramid.PyramidGrid, budget: float | str
    ) -> list[torch.Tensor]:
        """Where each look but the widest is made: a mask of its supports (rows, cols)."""
        gains, seen = self._gains(number, candidate.looks, candidate.made[-1])
        if budget == "all":
            return [torch.ones_like(gain, dtype=torch.bool) for gain in gains]
        size = self._images[number].size
        passes = pyramid.passes_allowed(budget, grid.roots, size, self._target)
        # Blocks without a label were not looked at; their share of the budget is not spent elsewhere.
        allowed = round(seen * pyramid.closer_looks(passes, grid.roots, size))
        price = pyramid.price_for(torch.cat([torch.empty(0), *(gain.flatten() for gain in gains)]), allowed)
        pays = [gain > price for gain in gains]
        for level in reversed(range(len(pays) - 1)) if candidate.cascaded else ():
            (rows, cols), parts = pays[level].shape, grid.sides[level + 1] // grid.sides[level]
            wider = pays[level + 1].repeat_interleave(parts, 0).repeat_interleave(parts, 1)
            pays[level] &= wider[:rows, :cols]  # where the wider support that it lies in is chosen
        return pays

    def _gains_of(self, number: int, looks: Looks, widest: Looks) -> tuple[list[torch.Tensor], float]:
        """Gain of each look but the widest at its supports (rows, cols), and what share of samples was looked at."""
        image = self._images[number]
        wide, grid = self.seen[number, widest].float(), pyramid.PyramidGrid.of(image.size, looks)
        looked_at = (wide.sum(dim=0) > 0).float()
        entropy = looked_at * image.membership.entropy(image.membership.as_logits(wide), dim=0)
        return [_gains(image, entropy, side, grid) for side in grid.sides[:-1]], float(looked_at.mean())


def _gains(image: SampledImage, entropy: torch.Tensor, side: int, grid: pyramid.PyramidGrid) -> torch.Tensor:
    """Gain of a look at every support of a side, (rows, cols): see `Predictor`."""
    rows, cols = (int(positions[-1]) // side + 1 for positions in (image.rows, image.cols))
    place = (image.rows // side)[:, None] * cols + image.cols // side
    sums, counts = (
        torch.zeros(rows * cols).index_add_(0, place.flatten(), values.flatten())
        for values in (entropy, torch.ones_like(entropy))
    )
    corners = torch.cartesian_prod(torch.arange(rows) * side, torch.arange(cols) * side).reshape(-1, 2)
    supports = Windows(corners[:, 0], corners[:, 1], side)
    return pyramid.gains_of(sums / counts.clamp(min=1), supports, grid.sides[0], image.size).view(rows, cols)


def tune(
    path: Path,
    *,
    split: str = "val",
    budgets: Sequence[float] = BUDGETS,
    ttas: Sequence[Tta] = (),
    overwrite: bool = False,
    loaded: TrainedRun | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    **how: Unpack[Loading],
) -> list[Trial]:
    """Try every way of looking that fits each budget, and note the best of each in the run's folder.

    Every look is made once everywhere; what a budget would choose from them, and how it would do, is then computed at
    evenly spread pixels. One fixed field of view is among the candidates, with every margin that fits: what is chosen
    is not worse there than the best fixed field of view of the same network at the same cost.

    Budgets are shares of what one fixed field of view costs, one pass a target. `loaded` is the run of this folder,
    where it is loaded already; for one process. Trials are best first within each budget. See `foveate.Run.tune`.
    """
    folder = RunFolder(path)
    refuse_existing(folder.tuned_file, overwrite)
    run = loaded or led(path, how)
    if ttas and isinstance(run.segmenter, CascadeSegmenter):
        raise ConfigError("test-time augmentation does not work with cascades; tune without --tta")
    plan, rounds = plan_evaluation(run.config, split, SCORES_ONLY), [None, *ttas]
    work, processes = partial(shared, run, path, how, _looked), how.get("processes", 1)
    trials = [
        trial
        for tta in rounds
        for trial in _tried(run, plan, budgets, tta, work, processes, lambda part: on_progress(part / len(rounds)))
    ]
    if not trials:
        raise ConfigError(f"budgets of {list(budgets)} are too small; the widest look alone costs more")
    trials.sort(key=lambda trial: (trial.budget, -trial.miou))
    listed = {"chosen": best_of(trials), "trials": trials}
    tree = {"split": split, **{key: [one._asdict() for one in some] for key, some in listed.items()}}
    write_text(folder.tuned_file, sealed(tree), overwrite=overwrite)
    return trials


def _tried(
    run: TrainedRun,
    plan: EvaluationPlan,
    budgets: Sequence[float],
    tta: Tta | None,
    work: Callable[..., Generator[Iterable[tuple[int, Looks, torch.Tensor]]]],
    processes: int,
    progress: Callable[[float], None],
) -> Iterator[Trial]:
    """All trials with one test-time augmentation, or without: every pass of a patch is paid for."""
    segmenter, times, names = run.segmenter, PASSES_OF_A_PATCH[tta], run.config.data.class_names
    target, cascaded = segmenter.scales.target, isinstance(segmenter, CascadeSegmenter)
    sizes = [image.size for image in plan.images]
    tried = [
        (budget, candidate)
        for budget in (round(share * 1e6 / target**2, 3) for share in budgets)
        for candidate in candidates(segmenter.views_passed, target, budget / times, sizes, cascaded=cascaded)
    ]
    made = sorted({looks for _, candidate in tried for looks in candidate.made}, key=_cost, reverse=True)
    images = list(_sampled(run, plan, len(made))) if made else []
    # One process opens an image once, which may be to decode it whole; of several each gets a look at a time.
    shares = [made] if processes == 1 else [[looks] for looks in made]
    jobs = [(number, image, some, tta) for number, image in enumerate(images) for some in shares]
    total = sum(size.pixels for size in sizes) * sum(map(_cost, made))
    simulation = Simulation(images, target)
    with closing(work(jobs, plan)) as found:
        for some in found:
            for number, looks, probabilities in some:
                simulation.seen[number, looks] = probabilities
                progress(sizes[number].pixels * _cost(looks) / total)
    for budget, candidate in tried:
        # One look needs no price, and its cover may reach over the border by more than the budget says.
        counts, passes = simulation.outcome(candidate, "all" if len(candidate.looks) == 1 else budget / times)
        each = times * passes / sum(size.megapixels for size in sizes)
        yield Trial(budget, candidate.looks, candidate.fusion, scores_from(counts, names).miou, each, tta)


def _cost(looks: Looks) -> float:
    """About how many passes a pixel takes."""
    return sum(1 / (look.view * look.keep) ** 2 for look in looks)


def _sampled(run: TrainedRun, plan: EvaluationPlan, looks: int) -> Iterator[SampledImage]:
    """The images of a plan at the pixels where this many looks are kept."""
    data, side = run.config.data, run.config.inference.block_size
    step = sampling_step([image.size for image in plan.images], len(data.classes), looks)
    for sample, image in zip(plan.samples, plan.images, strict=True):
        with open_labels(sample, data) as labels:
            yield sample_labels(labels, image.size, side, step=step, membership=data.membership)


def _looked(
    run: TrainedRun, plan: EvaluationPlan, job: tuple[int, SampledImage, list[Looks], Tta | None]
) -> Iterator[tuple[int, Looks, torch.Tensor]]:
    """What looking at one image in some ways finds: see `sample_look`."""
    number, image, made, tta = job
    segmenter, data = ready_to_predict(run.segmenter, run.device), run.config.data
    with open_sample(plan.samples[number], data) as reader:
        source, config = PixelSource.of(reader, data, run.device), run.config.inference.model_copy(update={"tta": tta})
        for looks in made:
            yield number, looks, sample_look(segmenter, source, image, looks, config, len(data.classes))
