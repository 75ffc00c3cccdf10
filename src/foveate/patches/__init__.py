"""Patches: at which fields of view they are cut, how they are read, and how their outputs return to the image.

The package is also a function: `foveate.patches(config)` is a torch data set, see `foveate.api.training.patches`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any

from foveate.errors import GeometryError
from foveate.geometry import Window
from foveate.package import door

if TYPE_CHECKING:
    from foveate.patches.alignment import crop_central, resize_logits
    from foveate.patches.extraction import Windows, extract_patches, overview_of


@dataclass(frozen=True, slots=True)
class ScaleSet:
    """The fields of view to choose from, ascending, for patches of one constant size.

    Attributes:
        patch_size: side P of the patch the network sees, in patch pixels.
        fields_of_view: sides of the windows a patch may be cut from, in level-0 pixels, strictly ascending, each at
            least `patch_size`. Index 0 is the narrowest and the side of the target.

    Raises:
        GeometryError: when the fields of view are empty, unsorted, repeated or smaller than the patch.

    Source: the "patch bank" of arXiv 2007.15124, section 2.
    """

    patch_size: int
    fields_of_view: tuple[int, ...] = field()

    def __init__(self, patch_size: int, fields_of_view: Sequence[int]) -> None:
        object.__setattr__(self, "patch_size", int(patch_size))
        object.__setattr__(self, "fields_of_view", tuple(int(f) for f in fields_of_view))
        self._check()

    def _check(self) -> None:
        views = self.fields_of_view
        if self.patch_size < 1:
            raise GeometryError(f"the patch size must be at least 1, got {self.patch_size}")
        if not views:
            raise GeometryError("fields_of_view is empty; give at least one, for example [256, 512, 1024]")
        if any(a >= b for a, b in pairwise(views)):
            raise GeometryError(
                f"fields_of_view must be strictly ascending, got {list(views)}; try {sorted(set(views))}"
            )
        if views[0] < self.patch_size:
            raise GeometryError(
                f"a field of view of {views[0]} px is smaller than the patch of {self.patch_size} px and would be "
                f"enlarged; use fields of view of at least {self.patch_size} or a smaller patch_size"
            )

    def __len__(self) -> int:
        return len(self.fields_of_view)

    @property
    def target(self) -> int:
        """Side T of the window a prediction is for: the narrowest field of view, in level-0 pixels."""
        return self.fields_of_view[0]

    def downsample(self, scale: int) -> float:
        """Level-0 pixels per patch pixel at this scale, at least 1."""
        return self.fields_of_view[scale] / self.patch_size

    def only(self, scales: Sequence[int]) -> tuple[int, ...]:
        """The fields of view of some scales."""
        return tuple(self.fields_of_view[scale] for scale in scales)

    def window(self, around: Window, scale: int) -> Window:
        """The window of this scale centred on a cell or target; it may reach outside the image."""
        return around.centred(self.fields_of_view[scale])


class _CallablePackage(ModuleType):
    """The one name stands for both: users call it, and the library keeps its modules below it."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("foveate.api.training").patches(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage

__all__ = ["ScaleSet", "Windows", "crop_central", "extract_patches", "overview_of", "resize_logits"]

__getattr__, __dir__ = door(
    __name__,
    {
        "alignment": "crop_central resize_logits",
        "extraction": "Windows extract_patches overview_of",
    },
)
