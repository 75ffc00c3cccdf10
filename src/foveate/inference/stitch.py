"""Stitching: place the predictions of passes on a block, where they overlap by weight or by confidence."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.errors import GeometryError
from foveate.geometry import Window
from foveate.looks.passes import Passes
from foveate.patches.alignment import importance_window
from foveate.types import Blending, BoolArray


class Canvases:
    """Memory for the sums of blocks, used again: new pages, which the system clears, took longer than the sums.

    What is not given back is forgotten, and new memory taken.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._lock = Lock()  # another thread gives back

    def zeros(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Memory to be given back, and the zeros of this shape in it."""
        count = math.prod(shape)
        with self._lock:
            # The smallest that fits, so that what is large is left for what needs it.
            fitting = sorted((t for t in self._free if t.numel() >= count and t.device == device), key=Tensor.numel)
            if fitting:
                canvas = fitting[0]
                self._free = [t for t in self._free if t is not canvas]
            else:
                self._free = [t for t in self._free if t.numel() > count]  # of smaller ones there are enough soon
                with torch.inference_mode(False):  # it is cleared and filled in that mode and outside of it
                    canvas = torch.empty(count, device=device)
        return canvas, canvas[:count].view(shape).zero_()

    def give_back(self, canvas: Tensor | None) -> None:
        """Take memory back that `zeros` gave; nothing may refer to it any more."""
        with self._lock:
            if canvas is not None and all(t is not canvas for t in self._free):
                self._free.append(canvas)


class Stitcher(ABC):
    """Puts predictions together over one block.

    At a pixel, predictions are taken in the order of the passes, which a planner keeps the same whatever the block; so
    the result does not depend on how the image was cut into blocks.

    Args:
        block: the part of the image to fill, level-0 pixels.
        device: where the result is kept.
        canvases: gives the memory for it.

    Attributes:
        canvas: the memory of the result, for `Canvases.give_back` once that is not needed any more.
    """

    def __init__(self, block: Window, device: torch.device, canvases: Canvases | None = None) -> None:
        self._block = block
        self._device = device
        self._canvases = canvases or Canvases()
        self._values: Tensor | None = None
        self.canvas: Tensor | None = None

    @abstractmethod
    def add(self, passes: Passes, values: Tensor, pixel_weights: Tensor | None = None) -> None:
        """Add the predictions of N passes.

        Args:
            passes: where they count, and how much.
            values: (N, C, side, side) logits or probabilities.
            pixel_weights: (1, h, w) over the block, a factor on what these passes count at a pixel, or (C, h, w), for
                each class there.
        """

    @abstractmethod
    def result(self, inside: BoolArray | None = None) -> Tensor:
        """The stitched predictions (C, h, w) of the block; asked for once, after all were added.

        Args:
            inside: (h, w) which pixels are wanted; all when None. The others hold anything.

        Raises:
            GeometryError: when a wanted pixel was covered by no pass.
        """

    def _whole(self, values: Tensor) -> Tensor:
        """The block's own array (C, h, w), zeros at first."""
        if self._values is None:
            shape = (values.shape[1], self._block.height, self._block.width)
            self.canvas, self._values = self._canvases.zeros(shape, self._device)
        return self._values

    def _placements(self, passes: Passes) -> Iterator[_Placement]:
        tops, lefts, side = passes.supports
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            support = Window(top, left, side, side)
            inside = support.intersection(self._block)
            if inside is not None:
                yield _Placement(i, inside.within(self._block), inside.within(support))

    def _covered(self, covered: Tensor, inside: BoolArray | None) -> Tensor:
        covered = covered if inside is None else covered | torch.from_numpy(~inside).to(covered.device)
        if self._values is not None and covered.device.type != "cpu":
            torch._assert_async(covered.all())  # asking would wait for the device
            return self._values
        if self._values is None or not bool(covered.all()):
            raise GeometryError(f"the plan leaves pixels of {self._block} without a prediction")
        return self._values


class _Placement(NamedTuple):
    """Where a pass meets the block: its number, and the common part in the block's and in the support's pixels."""

    number: int
    there: tuple[slice, slice]
    here: tuple[slice, slice]


class AverageStitcher(Stitcher):
    """The weighted mean of the predictions at each pixel.

    Args:
        block, device: see `Stitcher`.
        blending: importance of a prediction over its support.
    """

    def __init__(
        self, block: Window, device: torch.device, blending: Blending, canvases: Canvases | None = None
    ) -> None:
        super().__init__(block, device, canvases)
        self._blending = blending
        self._windows: dict[int, Tensor] = {}
        self._weight_canvas, self._weights = self._canvases.zeros((1, block.height, block.width), device)
        self._product = torch.empty(0)

    def add(self, passes: Passes, values: Tensor, pixel_weights: Tensor | None = None) -> None:
        """Add to the sums, by importance, weight of the passes and weight of the pixels."""
        importance, sums = self._importance(passes.supports.side), self._whole(values)
        counts = passes.weight.tolist()
        for number, there, here in self._placements(passes):
            weights = importance[here] if counts[number] == 1 else importance[here] * counts[number]
            weights = weights if pixel_weights is None else weights * pixel_weights[:, *there]
            # In steps, and not fused: the bits are those of one pass after the other on any processor.
            sums[:, *there].add_(self._times(values[number][:, *here], weights))
            self._weights[:, *there].add_(weights)

    def _times(self, values: Tensor, weights: Tensor) -> Tensor:
        """A product in memory that is used again and again."""
        if self._product.numel() < values.numel() or self._product.device != values.device:
            self._product = torch.empty(values.numel(), device=values.device)
        return torch.mul(values, weights, out=self._product[: values.numel()].view(values.shape))

    @torch.inference_mode()
    def result(self, inside: BoolArray | None = None) -> Tensor:
        """The sums over the weights."""
        sums = self._covered(self._weights > 0, inside)
        sums.div_(self._weights.clamp_(min=torch.finfo(torch.float32).tiny))
        self._canvases.give_back(self._weight_canvas)
        return sums

    def _importance(self, side: int) -> Tensor:
        if side not in self._windows:
            self._windows[side] = importance_window(side, self._blending).to(self._device)
        return self._windows[side]
