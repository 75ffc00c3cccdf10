"""Choose on labelled images how a trained run spends a budget: fields of view, margins, and how they are fused."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.cascade import CascadeSegmenter
from foveate.data.images import open_labels, open_sample
from foveate.devices import device_of
from foveate.errors import ConfigError
from foveate.evaluation import tune as simulation
from foveate.files import refuse_existing, write_text
from foveate.geometry import Size
from foveate.inference.config import PASSES_OF_A_PATCH, Tta
from foveate.inference.executor import shared_out
from foveate.inference.field import closest_most
from foveate.inference.pipeline import ready_to_predict
from foveate.inference.source import PixelSource
from foveate.metrics import scores_from
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import SCORES_ONLY, EvaluationPlan, plan_evaluation
from foveate.runs.folder import RunFolder, TrainedRun, load_run
from foveate.runs.tuned import SLACK, TunedLooks
from foveate.texts import sealed

BUDGETS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
# How much more a closer look counts than the next wider: as much, a good deal more, or all but alone.
_FACTORS = (1.0, 3.0, 50.0)


class Trial(NamedTuple):
    """A candidate at a budget, and how well it did."""

    budget: float  # passes per megapixel that were allowed
    candidate: simulation.Candidate  # the way of looking
    miou: float  # at evenly spread pixels of the labelled images, in [0, 1]
    passes_per_megapixel: float  # what it cost
    tta: Tta | None = None  # test-time augmentation, as `InferenceConfig.tta`


class _Job(NamedTuple):
    """One look to be made everywhere in one image, after the wider ones that it depends on."""

    image: int
    looks: simulation.Looks
    tta: Tta | None = None

    def passes(self, image: simulation.SampledImage) -> float:
        """About how many it takes."""
        return sum(image.size.pixels / (look.view * look.keep) ** 2 for look in self.looks)


def tune(  # noqa: PLR0913 - as evaluate_run
    path: Path,
    *,
    split: str = "val",
    budgets: Sequence[float] = BUDGETS,
    ttas: Sequence[Tta] = (),
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    overrides: list[str] | None = None,
    processes: int = 1,
    overwrite: bool = False,
    loaded: TrainedRun | None = None,
    on_progress: Callable[[float], None] | None = None,
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
    # Several processes load it each for itself.
    run = loaded or folder.load(checkpoint, torch.device(device if processes == 1 else "cpu"), overrides)
    if ttas and isinstance(run.segmenter, CascadeSegmenter):
        raise ConfigError("test-time augmentation does not work with cascades; tune without --tta")
    plan, rounds = plan_evaluation(run.config, split, SCORES_ONLY), [None, *ttas]
    where = (path, checkpoint, str(device), overrides, processes)
    progress = on_progress or (lambda _: None)
    trials = [
        trial
        for tta in rounds
        for trial in _tried(run, plan, budgets, tta, where, lambda part: progress(part / len(rounds)))
    ]
    if not trials:
        raise ConfigError(f"budgets of {list(budgets)} are too small; the widest look alone costs more")
    trials.sort(key=lambda trial: (trial.budget, -trial.miou))
    _save(folder, trials, split, overwrite)
    return trials


def _tried(
    run: TrainedRun,
    plan: EvaluationPlan,
    budgets: Sequence[float],
    tta: Tta | None,
    where: tuple[Path, str, str, list[str] | None, int],
    progress: Callable[[float], None],
) -> list[Trial]:
    """All trials with one test-time augmentation, or without: every pass of a patch is paid for."""
    *place, processes = where
    target, times = run.segmenter.scales.target, PASSES_OF_A_PATCH[tta]
    shares = [round(share * 1e6 / target**2, 3) for share in budgets]
    allowed = {budget: _affordable(run, plan, budget / times) for budget in shares}
    candidates = {looks: _candidates(looks, run) for looks in {looks for ways in allowed.values() for looks in ways}}
    made = sorted({looks for group in candidates.values() for one in group for looks in one.made})
    if not made:
        return []
    images = _unseen(run.config, plan, len(made))
    jobs = [_Job(i, looks, tta) for i in range(len(images)) for looks in made]
    if processes == 1:
        found = _looked(run, plan, images, jobs, range(len(jobs)))
    else:
        pieces = [[number] for number in range(len(jobs))]
        found = _one_by_one(shared_out(_prepared, _looked_at, pieces, processes, *place, plan, images, jobs))
    costs = {job: job.passes(images[job.image]) for job in jobs}
    total = sum(costs.values())
    with closing(found):
        for job, probabilities in found:
            images[job.image].probabilities[job.looks] = probabilities
            progress(costs[job] / total)
    return [
        _trial(images, budget, candidate, target, run.config.data.class_names, tta)
        for budget, ways in allowed.items()
        for looks in ways
        for candidate in candidates[looks]
    ]


def best_of(trials: Sequence[Trial]) -> list[TunedLooks]:
    """The best trial of each budget, smallest budget first."""
    best: dict[float, Trial] = {}
    for trial in trials:
        if trial.budget not in best or trial.miou > best[trial.budget].miou:
            best[trial.budget] = trial
    return [TunedLooks(t.budget, t.candidate.looks, t.candidate.fusion, t.miou, t.tta) for _, t in sorted(best.items())]


def _affordable(run: TrainedRun, plan: EvaluationPlan, budget: float) -> list[simulation.Looks]:
    """The ways whose widest look the budget pays for."""
    sizes = [image.size for image in plan.images]
    views, target = run.segmenter.views_passed, run.segmenter.scales.target
    ways = (
        simulation.ways_down(views)
        if isinstance(run.segmenter, CascadeSegmenter)
        else simulation.ways_of_looking(views, target)
    )
    return [looks for looks in ways if _pays_for(budget, looks, sizes)]


def _pays_for(budget: float, looks: simulation.Looks, sizes: Sequence[Size]) -> bool:
    """Whether a budget pays for the widest look of all, everywhere in images of these sizes.

    One field of view is never left out for its windows that reach over the border: one pass a target has them too.
    """
    if len(looks) == 1:
        return 1e6 / (looks[0].view * looks[0].keep) ** 2 <= budget * SLACK
    return all(simulation.least_passes(looks, size) <= budget * size.megapixels for size in sizes)


def _candidates(looks: simulation.Looks, run: TrainedRun) -> list[simulation.Candidate]:
    """A way of looking with every way to fuse what it sees."""
    if len(looks) == 1:
        return [simulation.Candidate(looks, (1.0,))]
    cascaded = isinstance(run.segmenter, CascadeSegmenter)
    return [simulation.Candidate(looks, closest_most(len(looks), factor), cascaded) for factor in _FACTORS]


def _trial(
    images: Sequence[simulation.SampledImage],
    budget: float,
    candidate: simulation.Candidate,
    target: int,
    names: list[str],
    tta: Tta | None,
) -> Trial:
    times = PASSES_OF_A_PATCH[tta]
    # One look needs no price, and its cover may reach over the border by more than the budget says.
    counts, passes = simulation.simulate(images, candidate, "all" if candidate.is_fixed else budget / times, target)
    megapixels = sum(image.size.megapixels for image in images)
    return Trial(budget, candidate, scores_from(counts, names).miou, times * passes / megapixels, tta)


def _unseen(config: RunConfig, plan: EvaluationPlan, looks: int) -> list[simulation.SampledImage]:
    """The images of a plan at the pixels where this many looks are kept; none is made yet."""
    data, side = config.data, config.inference.block_size
    step = simulation.sampling_step([image.size for image in plan.images], len(data.classes), looks)
    images = []
    for sample, image in zip(plan.samples, plan.images, strict=True):
        with open_labels(sample, data) as labels:
            images.append(simulation.sample_labels(labels, image.size, side, step=step, membership=data.membership))
    return images


def _one_by_one(found: Generator[list[tuple[_Job, Tensor]]]) -> Generator[tuple[_Job, Tensor]]:
    with closing(found):
        for some in found:
            yield from some


_Prepared = tuple[TrainedRun, EvaluationPlan, Sequence[simulation.SampledImage], Sequence[_Job]]


def _prepared(
    rank: int,
    path: Path,
    checkpoint: str,
    device: str,
    overrides: list[str] | None,
    plan: EvaluationPlan,
    images: Sequence[simulation.SampledImage],
    jobs: Sequence[_Job],
) -> _Prepared:
    run = load_run(path, checkpoint=checkpoint, device=device_of(rank, device), overrides=overrides)
    return run, plan, images, jobs


def _looked_at(prepared: _Prepared, numbers: Iterable[int]) -> list[tuple[_Job, Tensor]]:
    """What the numbered jobs find, in one process of several."""
    return list(_looked(*prepared, numbers))


def _looked(
    run: TrainedRun,
    plan: EvaluationPlan,
    images: Sequence[simulation.SampledImage],
    jobs: Sequence[_Job],
    numbers: Iterable[int],
) -> Generator[tuple[_Job, Tensor]]:
    """What the numbered jobs find."""
    segmenter, data = ready_to_predict(run.segmenter, run.device), run.config.data
    for job in (jobs[number] for number in numbers):
        with open_sample(plan.samples[job.image], data) as reader:
            source = PixelSource.of(reader, data, run.device)
            config = run.config.inference.model_copy(update={"tta": job.tta})
            way = (images[job.image], job.looks, config, len(data.classes))
            yield job, simulation.sample_look(segmenter, source, *way)


def _save(folder: RunFolder, trials: Sequence[Trial], split: str, overwrite: bool) -> None:
    tree = {
        "split": split,
        "chosen": [choice.tree() for choice in best_of(trials)],
        "trials": [
            {
                "budget": trial.budget,
                "looks": [list(look) for look in trial.candidate.looks],
                "fusion": list(trial.candidate.fusion),
                "miou": trial.miou,
                "passes_per_megapixel": trial.passes_per_megapixel,
                "tta": trial.tta,
            }
            for trial in trials
        ],
    }
    write_text(folder.tuned_file, sealed(tree), overwrite=overwrite)
