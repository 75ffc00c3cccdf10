"""What `foveate tune` chose, and how it enters the configuration of inference."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from foveate.errors import ConfigError, reason_of
from foveate.foveation.estimator import Estimator
from foveate.inference.config import InferenceConfig, Tta
from foveate.inference.field import Fusion
from foveate.inference.runner import in_seconds
from foveate.looks.pyramid import PyramidLook, share_of_fixed
from foveate.texts import read_tree

_Read = TypeVar("_Read")
SLACK = 1.02  # a cover of whole windows costs a little more than its share where it reaches over the border


@dataclass(frozen=True, slots=True)
class TunedLooks:
    """The best way to spend a budget."""

    budget: float  # passes per megapixel
    looks: tuple[PyramidLook, ...]  # smallest kept part first
    fusion: Fusion  # how much each of them counts
    miou: float  # at evenly spread pixels of the labelled images, in [0, 1]
    tta: Tta | None = None  # test-time augmentation, as `InferenceConfig.tta`; the budget pays for its passes

    def tree(self) -> dict[str, Any]:
        """Plain values for JSON."""
        looks = [list(look) for look in self.looks]
        tree = {"budget": self.budget, "looks": looks, "fusion": list(self.fusion), "miou": self.miou}
        return tree | ({"tta": self.tta} if self.tta else {})


def read_tuned(path: Path) -> list[TunedLooks]:
    """The choices in a file, smallest budget first; none where there is no file."""

    def choice(one: Any) -> TunedLooks:
        fusion, tta = tuple(map(float, one["fusion"])), InferenceConfig(tta=one.get("tta")).tta
        return TunedLooks(float(one["budget"]), _looks(one), fusion, float(one["miou"]), tta)

    return sorted(_listed(path, "chosen", choice), key=lambda one: one.budget)


def _listed(path: Path, key: str, read: Callable[[Any], _Read]) -> list[_Read]:
    """What the file of `foveate tune` lists under a key; nothing without a file."""
    if not path.exists():
        return []
    remedy = "run `foveate tune` again with --overwrite"
    tree = read_tree(path, ConfigError, remedy, ours=True)
    try:
        return [read(one) for one in tree[key]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{path} is damaged ({reason_of(error)}); {remedy}") from None


def _looks(one: Any) -> tuple[PyramidLook, ...]:
    return tuple(PyramidLook(int(view), float(keep)) for view, keep in one["looks"])


class CurvePoint(NamedTuple):
    """The best of a budget on the images that were tuned on."""

    budget: float  # passes per megapixel that were allowed
    passes: float  # passes per megapixel that were made
    miou: float  # in [0, 1]
    looks: tuple[PyramidLook, ...]  # smallest kept part first


def read_curve(path: Path, *, fixed: bool = False) -> list[CurvePoint]:
    """The mIoU that every budget buys, smallest first; of one field of view alone if `fixed`. None without a file."""

    def trial(one: Any) -> CurvePoint:
        return CurvePoint(float(one["budget"]), float(one["passes_per_megapixel"]), float(one["miou"]), _looks(one))

    trials = [one for one in _listed(path, "trials", trial) if not fixed or len(one.looks) == 1]
    best: dict[float, CurvePoint] = {}
    for one in trials:
        best[one.budget] = max(best.get(one.budget, one), one, key=lambda point: point.miou)
    return [best[budget] for budget in sorted(best)]


def with_tuned(
    config: InferenceConfig, tuned: Sequence[TunedLooks], estimator: Estimator, target: int
) -> InferenceConfig:
    """The configuration with the looks chosen for its budget.

    It stays as it is where looks or the planner per_target are given, nothing was chosen for so small a budget, or the
    budget is in seconds, which have to be counted in passes first.

    Of several choices the one for the largest budget that is not above this one is taken. Where neither the
    configuration nor the estimator names a budget, it is the largest that was tuned.
    """
    budget = config.budget or estimator.walk.budget
    given = config.looks is not None or config.planner == "per_target"
    if given or in_seconds(budget):
        return config
    each = config.passes_of_a_patch
    # "all" is not a share.
    allowed = (share_of_fixed(budget) or math.inf) * 1e6 / target**2 if isinstance(budget, str) else budget
    # Who asks for augmentation gets it: only what was chosen without any is to be augmented.
    affordable = [one for one in tuned if one.budget * each <= allowed * SLACK and not (config.tta and one.tta)]
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
