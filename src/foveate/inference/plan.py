"""How an image is cut into blocks, and how it is looked at: settled once, where a job begins, and handed on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from foveate.errors import ConfigError
from foveate.foveation.estimator import Estimator, Joint
from foveate.geometry import Size, Window, ceil_div
from foveate.inference.config import InferenceConfig
from foveate.looks.passes import MappedLook, PassMap, target_stride
from foveate.looks.pyramid import PyramidGrid, PyramidLook, smallest_first
from foveate.patches.scales import ScaleSet

_DEFAULT = 2048
_KEPT = 0.5  # of the narrowest windows, where no looks are given


def block_side(wanted: int, cell: int, root: int) -> int:
    """Side of the blocks: the largest multiple at most `wanted` of the cell and the widest support, at least one.

    A cell then lies in one block only. So does a widest support, which would be passed again for every other block that
    it meets; where a common multiple is much larger than wanted, only the cell is respected.

    Args:
        wanted: level-0 pixels; 0 where that is still "auto".
        cell: side of what must not lie in two blocks.
        root: side of the widest supports of the planner, 1 where there are none.
    """
    wanted = wanted or _DEFAULT
    both = math.lcm(cell, root)
    unit = both if both <= 2 * wanted else cell
    return max(1, wanted // unit) * unit


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Disjoint blocks that cover an image, numbered row by row.

    A block's result depends on the image and the plan alone, so blocks may be done in any order, again, or elsewhere.
    """

    image: Size
    side: int

    @property
    def columns(self) -> int:
        """Blocks in a row."""
        return ceil_div(self.image.width, self.side)

    def __len__(self) -> int:
        return ceil_div(self.image.height, self.side) * self.columns

    def __getitem__(self, number: int) -> Window:
        if not 0 <= number < len(self):
            raise IndexError(number)
        row, col = divmod(number, self.columns)
        top, left = row * self.side, col * self.side
        return Window(top, left, min(self.side, self.image.height - top), min(self.side, self.image.width - left))

    def __iter__(self) -> Iterator[Window]:
        return (self[number] for number in range(len(self)))

    def place_in_bands(self, number: int, width: int) -> tuple[int, int, int]:
        """What to sort numbers by, so that blocks are worked on in bands of so many columns, each row by row."""
        row, col = divmod(number, self.columns)
        return col // width, row, col


def blocks_abreast(side: int, stride: int, patch_size: int, looks: int) -> int:
    """How many blocks in a row can keep what reaches below them, beside what reaches to the right of the last one.

    Args:
        side: of the blocks.
        stride: between passes.
        patch_size: side of an output.
        looks: passes of each target.
    """
    return max(1, side * stride // (patch_size**2 * looks) - 2)


@dataclass(frozen=True, slots=True)
class LookPlan:
    """The looks, and where each of their passes is used.

    Attributes:
        pyramid: whether the widest windows are passed everywhere, and closer ones inside them; else every target is
            passed at the scale of its cell.
        looks: smallest kept part first; of one pass a target, one for each field of view in use.
        scales: the scale of each look.
        sides: side of the supports of each look, level-0 pixels.
        target: side of a target, level-0 pixels.
        map: the grid of the map of passes.
    """

    pyramid: bool
    looks: tuple[PyramidLook, ...]
    scales: tuple[int, ...]
    sides: tuple[int, ...]
    target: int
    map: PassMap

    @classmethod
    def of(cls, config: InferenceConfig, estimator: Estimator, scales: ScaleSet) -> "LookPlan":
        """As configured, or as the estimator wants it; given looks are those of a pyramid.

        Raises:
            ConfigError: when a look has no field of view of the model, or looks are given that would not be used.
        """
        if config.looks is not None and config.planner == "per_target":
            raise ConfigError(
                "inference.looks needs the planner pyramid, but inference.planner is per_target; remove one of them"
            )
        views = scales.only(estimator.reads(len(scales)).scales)
        if config.looks is not None or (config.planner or estimator.walk.planner) == "pyramid":
            if isinstance(estimator, Joint):
                raise ConfigError(
                    "this run sees two fields of view in each pass: it has no looks to choose from, nothing to tune; "
                    "remove inference.looks, inference.planner and the budget"
                )
            looks = looks_of(config, views)
            sides = PyramidGrid.sides_of(looks)
            mapped = PassMap(sides[0], tuple(MappedLook(k.view, side) for k, side in zip(looks, sides, strict=True)))
            return cls(True, looks, _scales_of(looks, scales), sides, scales.target, mapped)
        looks = tuple(PyramidLook(view, scales.target / view) for view in views)
        stride = target_stride(scales.target, config.overlap)
        mapped = PassMap(stride, tuple(MappedLook(view, scales.target) for view in scales.fields_of_view))
        sides = (scales.target,) * len(looks)
        return cls(False, looks, _scales_of(looks, scales), sides, scales.target, mapped)

    def check_cascade(self) -> None:
        """Refuse what a cascade cannot do.

        Raises:
            ConfigError: where it does not work level by level, or its looks are not one of each field of view.
        """
        if not self.pyramid:
            raise ConfigError("a cascade works level by level; remove inference.planner, or set it to pyramid")
        if any(one.view >= other.view for one, other in pairwise(self.looks)):
            raise ConfigError(
                f"inference.looks of a cascade are one of each field of view, the closer ones with smaller kept parts; "
                f"got {[tuple(look) for look in self.looks]}"
            )

    @property
    def root(self) -> int:
        """Side of the supports that are looked at first everywhere; 1 where there are none."""
        return self.sides[-1] if self.pyramid else 1

    @property
    def reach(self) -> int:
        """How far supports that begin in a block may reach beyond it, level-0 pixels."""
        return 0 if self.pyramid else self.target

    def block_side(self, wanted: int, cell: int) -> int:
        """Side of the blocks, such that neither a cell nor a widest support lies in two; see `block_side`."""
        return block_side(wanted, cell, self.root)

    def grid(self, image: Size) -> PyramidGrid:
        """Where a pyramid's passes are used in an image."""
        return PyramidGrid(image, self.sides)


def looks_of(config: InferenceConfig, views: Sequence[int]) -> tuple[PyramidLook, ...]:
    """The looks of the pyramid planner, smallest kept part first.

    Args:
        config: of inference.
        views: the fields of view in use, level-0 pixels.

    Raises:
        ConfigError: for a look at another field of view.
    """
    # Closer looks go to the uncertain places, so the margin is theirs; what wide windows say at their rims stands less.
    # One view alone has whole windows too: a budget of one pass a target, as it was trained, must be possible.
    given = config.looks or ((views[0], _KEPT), *((view, 1.0) for view in views[1:] or views))
    for view, _ in given:
        if view not in views:
            raise ConfigError(f"inference.looks names a field of view of {view}; the model's are {list(views)}")
    return smallest_first(given)


def _scales_of(looks: Sequence[PyramidLook], scales: ScaleSet) -> tuple[int, ...]:
    return tuple(scales.fields_of_view.index(look.view) for look in looks)
