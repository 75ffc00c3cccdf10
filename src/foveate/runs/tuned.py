"""The ways of looking that `foveate tune` tries, what it found out about them, and how its choice enters inference."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from foveate.errors import ConfigError, reason_of
from foveate.foveation.estimator import Estimator
from foveate.geometry import Size
from foveate.inference.config import InferenceConfig, Tta
from foveate.inference.field import Fusion, closest_most
from foveate.inference.runner import in_seconds
from foveate.looks.pyramid import PyramidGrid, PyramidLook, share_of_fixed, smallest_first
from foveate.texts import read_tree

Looks: TypeAlias = tuple[PyramidLook, ...]  # smallest kept part first

SLACK = 1.02  # a cover of whole windows costs a little more than its share where it reaches over the border
KEEPS = (0.5, 1.0)
_ALONE = (0.5, 0.75, 1.0)  # of one look alone: three quarters gain most of what a margin does, for less than two passes
# How much more a closer look counts than the next wider: as much, a good deal more, or all but alone.
_FACTORS = (1.0, 3.0, 50.0)


def ways_of_looking(views: Sequence[int], target: int | None = None) -> list[Looks]:
    """Every field of view alone, whole and with a margin; and closer looks after every wider one.

    The closer looks are whole windows, windows with a margin, or both, the latter where it is most uncertain. Or the
    same view once more, with a wider margin, alone or beside a narrower one: surroundings help as detail does.

    Args:
        views: the fields of view in use, ascending, level-0 pixels.
        target: side of a target, level-0 pixels; the narrowest view by default.
    """
    # The central part over one target is what one pass a target uses.
    centre = {view: (target or views[0]) / view for view in views}
    keeps = {view: sorted({centre[view], *KEEPS}) for view in views}
    alone = [[(view, keep)] for view in views for keep in sorted({centre[view], *_ALONE})]
    again = [[(view, few), (view, more)] for view in views for few, more in combinations(keeps[view], 2)]
    pairs = [
        [*((narrow, keep) for keep in closely), (wide, whole)]
        for narrow, wide in combinations(views, 2)
        for whole in KEEPS
        for closely in ((0.5,), (1.0,), (0.5, 1.0))
    ]
    both = [
        [(narrow, 0.5), (wide, centre[wide]), (wide, whole)]
        for narrow, wide in combinations(views, 2)
        for whole in KEEPS
        if centre[wide] < whole
    ]
    return list(dict.fromkeys(smallest_first(looks) for looks in (*alone, *again, *pairs, *both)))


def ways_down(views: Sequence[int]) -> list[Looks]:
    """Every field of view of a cascade alone, and every way down: whole windows or their central halves.

    Each way holds one look of each view, the closer ones with the smaller parts. Views are ascending, level-0 pixels.
    """
    chosen = [some for count in range(1, len(views) + 1) for some in combinations(views, count)]
    kept = [
        (some, keeps) for some in chosen for keeps in product(_ALONE if len(some) == 1 else KEEPS, repeat=len(some))
    ]
    ways = [smallest_first(zip(some, keeps, strict=True)) for some, keeps in kept]
    return [looks for looks in ways if all(one.view < other.view for one, other in pairwise(looks))]


def least_passes(looks: Looks, image: Size) -> int:
    """Passes that looking at an image once with the widest of the looks costs."""
    return len(PyramidGrid.of(image, looks).roots.top)


def pays_for(budget: float, looks: Looks, sizes: Sequence[Size]) -> bool:
    """Whether a budget pays for the widest look of all, everywhere in images of these sizes.

    One field of view is never left out for its windows that reach over the border: one pass a target has them too.
    """
    if len(looks) == 1:
        return 1e6 / (looks[0].view * looks[0].keep) ** 2 <= budget * SLACK
    return all(least_passes(looks, size) <= budget * size.megapixels for size in sizes)


class Candidate(NamedTuple):
    """A way of looking.

    Attributes:
        looks: smallest kept part first.
        fusion: how much each of them counts.
        cascaded: whether a look depends on the wider ones.
    """

    looks: Looks
    fusion: Fusion
    cascaded: bool = False

    @property
    def made(self) -> list[Looks]:
        """What each look is looked at by, smallest kept part first: it alone, or in a cascade it and all wider ones."""
        return [self.looks[i:] if self.cascaded else (look,) for i, look in enumerate(self.looks)]


def candidates(
    views: Sequence[int], target: int, budget: float, sizes: Sequence[Size], *, cascaded: bool
) -> list[Candidate]:
    """Ways of looking, each with every fusion, whose widest look a budget pays for in images of these sizes."""
    ways = ways_down(views) if cascaded else ways_of_looking(views, target)
    return [
        Candidate(looks, fusion, cascaded)
        for looks in ways
        if pays_for(budget, looks, sizes)
        for fusion in dict.fromkeys(closest_most(len(looks), factor) for factor in _FACTORS)
    ]


class Trial(NamedTuple):
    """A way to spend a budget, and how well it did.

    Attributes:
        budget: passes per megapixel that were allowed, those of an augmentation among them.
        looks: smallest kept part first.
        fusion: how much each of them counts.
        miou: at evenly spread pixels of the labelled images, in [0, 1].
        passes_per_megapixel: what it cost; the budget where an earlier version did not note it.
        tta: test-time augmentation, as `InferenceConfig.tta`.
    """

    budget: float
    looks: Looks
    fusion: Fusion
    miou: float
    passes_per_megapixel: float
    tta: Tta | None = None


def best_of(trials: Iterable[Trial]) -> list[Trial]:
    """The best trial of each budget, smallest budget first."""
    best: dict[float, Trial] = {}
    for trial in trials:
        best[trial.budget] = max(best.get(trial.budget, trial), trial, key=lambda one: one.miou)
    return [best[budget] for budget in sorted(best)]


def read_tuned(path: Path) -> list[Trial]:
    """What was chosen for each budget, smallest first; nothing where there is no file."""
    return best_of(_listed(path, "chosen"))


def read_curve(path: Path, *, fixed: bool = False) -> list[Trial]:
    """The best of each budget, smallest first; of one field of view alone if `fixed`. Nothing without a file."""
    return best_of(one for one in _listed(path, "trials") if not fixed or len(one.looks) == 1)


def _listed(path: Path, key: str) -> list[Trial]:
    """What the file of `foveate tune` lists under a key; nothing without a file."""
    if not path.exists():
        return []
    remedy = "run `foveate tune` again with --overwrite"
    tree = read_tree(path, ConfigError, remedy, ours=True)
    try:
        return [_trial(one) for one in tree[key]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{path} is damaged ({reason_of(error)}); {remedy}") from None


def _trial(one: Any) -> Trial:
    looks = tuple(PyramidLook(int(view), float(keep)) for view, keep in one["looks"])
    cost = float(one.get("passes_per_megapixel", one["budget"]))
    tta = InferenceConfig(tta=one.get("tta")).tta
    return Trial(float(one["budget"]), looks, tuple(map(float, one["fusion"])), float(one["miou"]), cost, tta)


def with_tuned(config: InferenceConfig, tuned: Sequence[Trial], estimator: Estimator, target: int) -> InferenceConfig:
    """The configuration with the looks chosen for its budget.

    It stays as it is where looks or the planner per_target are given, nothing was chosen for so small a budget, or the
    budget is in seconds, which have to be counted in passes first.

    Of several choices the one for the largest budget is taken that this one pays for: it is not below that budget, or
    not below what the choice cost. Where neither the configuration nor the estimator names a budget, it is the largest
    that was tuned.
    """
    budget = config.budget or estimator.walk.budget
    given = config.looks is not None or config.planner == "per_target"
    if given or in_seconds(budget):
        return config
    each = config.passes_of_a_patch
    share = share_of_fixed(budget) if isinstance(budget, str) else None
    number = math.inf if isinstance(budget, str) else budget  # "all" is not a share
    allowed = number if share is None else share * 1e6 / target**2
    # Who asks for augmentation gets it: only what was chosen without any is to be augmented.
    affordable = [
        one
        for one in tuned
        if min(one.budget, one.passes_per_megapixel) * each <= allowed * SLACK and not (config.tta and one.tta)
    ]
    if not affordable:
        return config
    choice = affordable[-1]
    if config.budget is None and budget == "all":
        budget = choice.budget * each  # whoever names none is not charged for closer looks everywhere
    # One look needs no price, and its cover may reach over the border by more than the budget says.
    budget = "all" if len(choice.looks) == 1 else budget
    changes: dict[str, Any] = {"planner": "pyramid", "looks": choice.looks, "fusion": choice.fusion, "budget": budget}
    changes |= {"tta": config.tta or choice.tta}
    return InferenceConfig.parse({**config.tree(), **changes}, source="what `foveate tune` chose")
