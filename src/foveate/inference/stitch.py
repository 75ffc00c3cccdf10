"""Stitching: place the predictions of passes on a block, where they overlap by weight."""

import math
from threading import Lock

import torch
from torch import Tensor

from foveate.devices import on_device
from foveate.errors import GeometryError
from foveate.geometry import BoolArray, Window
from foveate.looks.passes import Passes
from foveate.patches.scales import importance_window
from foveate.segmenter import FoveatedSegmenter
from foveate.types import Blending

_AT_ONCE = 2**17  # pixels that are divided at a time: they stay in a processor's cache


class Canvases:
    """Memory for the sums of blocks, used again: new pages, which the system clears, took longer than the sums.

    What is not given back is forgotten, and new memory taken.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._lock = Lock()  # another thread gives back

    def take(self, count: int, device: torch.device) -> Tensor:
        """So many floats, or more, that hold anything; to be given back."""
        with self._lock:
            # The smallest that fits, so that what is large is left for what needs it.
            fitting = sorted((t for t in self._free if t.numel() >= count and t.device == device), key=Tensor.numel)
            if fitting:
                self._free = [t for t in self._free if t is not fitting[0]]
                return fitting[0]
            self._free = [t for t in self._free if t.numel() > count]  # of smaller ones there are enough soon
            with torch.inference_mode(False):  # it is filled in that mode and outside of it
                return torch.empty(count, device=device)

    def give_back(self, canvas: Tensor | None) -> None:
        """Take memory back that `take` gave; nothing may refer to it any more."""
        with self._lock:
            if canvas is not None and all(t is not canvas for t in self._free):
                self._free.append(canvas)


class Stitcher:
    """The weighted mean of the predictions at each pixel of a block.

    At a pixel, predictions are taken in the order of the passes, which a planner keeps the same whatever the block; so
    the result does not depend on how the image was cut into blocks.

    Args:
        block: the part of the image to fill, level-0 pixels.
        device: where the result is kept.
        blending: importance of a prediction over its support.
        canvases: gives the memory for it.

    Attributes:
        canvas: the memory of the result, for `Canvases.give_back` once that is not needed any more.
    """

    def __init__(
        self, block: Window, device: torch.device, blending: Blending, canvases: Canvases | None = None
    ) -> None:
        self._block, self._device, self._blending = block, device, blending
        self._canvases = canvases or Canvases()
        self._weight_canvas, self._weights = self._taken(1)
        self._sums, self._product, self._cleared = self._weights, torch.empty(0), 0
        self._importance: dict[int, Tensor] = {}
        self.canvas: Tensor | None = None

    def add(self, passes: Passes, values: Tensor, pixel_weights: Tensor | None = None) -> None:
        """Add the predictions of N passes to the sums, by importance, weight of the passes and weight of the pixels.

        Args:
            passes: where they count, and how much.
            values: (N, C, side, side) logits or probabilities.
            pixel_weights: (1, h, w) over the block, a factor on what these passes count at a pixel, or (C, h, w), for
                each class there.
        """
        side = passes.supports.side
        if self.canvas is None:
            self.canvas, self._sums = self._taken(values.shape[1])
        if side not in self._importance:
            self._importance[side] = importance_window(side, self._blending).to(self._device)
        for value, (top, left), count in zip(values, passes.supports.corners, passes.weight.tolist(), strict=True):
            support = Window(top, left, side, side)
            inside = support.intersection(self._block)
            if inside is None:
                continue
            there, here = inside.within(self._block), inside.within(support)
            self._clear(there[0].stop)
            weights = self._importance[side][here]
            weights = weights if count == 1 else weights * count
            weights = weights if pixel_weights is None else weights * pixel_weights[:, *there]
            # In steps, and not fused: the bits are those of one pass after the other on any processor.
            self._sums[:, *there].add_(self._times(value[:, *here], weights))
            self._weights[:, *there].add_(weights)

    @torch.inference_mode()
    def result(self, inside: BoolArray | None = None) -> Tensor:
        """The stitched predictions (C, h, w) of the block; asked for once, after all were added.

        Args:
            inside: (h, w) which pixels are wanted; all when None. The others hold anything.

        Raises:
            GeometryError: when a wanted pixel was covered by no pass.
        """
        self._clear(self._block.height)
        self._check_covered(inside)
        rows = max(1, _AT_ONCE // self._block.width) if self._device.type == "cpu" else self._block.height
        for top in range(0, self._block.height, rows):
            weights = self._weights[:, top : top + rows].clamp_(min=torch.finfo(torch.float32).tiny)
            self._sums[:, top : top + rows].div_(weights)
        self._canvases.give_back(self._weight_canvas)
        return self._sums

    def _taken(self, bands: int) -> tuple[Tensor, Tensor]:
        """Memory, and the array (bands, h, w) over the block in it."""
        shape = (bands, self._block.height, self._block.width)
        canvas = self._canvases.take(math.prod(shape), self._device)
        return canvas, canvas[: math.prod(shape)].view(shape)

    def _clear(self, row: int) -> None:
        """Zeros down to a row, only when it is needed: what was just cleared is still in a processor's cache."""
        if row > self._cleared:
            for values in (self._sums, self._weights):
                values[:, self._cleared : row].zero_()
            self._cleared = row

    def _check_covered(self, inside: BoolArray | None) -> None:
        if inside is not None:
            wanted = torch.from_numpy(inside).to(self._device)
            covered = ((self._weights > 0) | ~wanted).all()
        else:
            covered = self._weights.amin() > 0
        if self._device.type != "cpu":
            torch._assert_async(covered)  # asking would wait for the device
        elif not bool(covered):
            raise GeometryError(f"the plan leaves pixels of {self._block} without a prediction")

    def _times(self, values: Tensor, weights: Tensor) -> Tensor:
        """A product in memory that is used again and again."""
        if self._product.numel() < values.numel() or self._product.device != values.device:
            self._product = torch.empty(values.numel(), device=values.device)
        return torch.mul(values, weights, out=self._product[: values.numel()].view(values.shape))


# Predictions are brought to the image's resolution for so many pixels at a time: a wide support has many. Few stay in a
# processor's cache; a device has work for a moment.
_PIXELS_AT_ONCE = {"cpu": 2**18}
_PIXELS_ON_DEVICE = 2**23


def pixels_at_once(device: torch.device) -> int:
    """Pixels of a class that are brought to the image's resolution at a time."""
    return _PIXELS_AT_ONCE.get(device.type, _PIXELS_ON_DEVICE)


@torch.inference_mode()
def add_outputs(
    stitcher: Stitcher,
    passes: Passes,
    output: Tensor,
    segmenter: FoveatedSegmenter,
    *,
    by_probability: bool,
    pixel_weights: Tensor | None = None,
) -> None:
    """Bring outputs (n, C, P', P') to the image's resolution over their supports, and stitch them."""
    side, weights = passes.supports.side, passes.scale_weights
    # Those of one scale stay on the processor, where they can be looked at without waiting.
    weights = weights if bool((weights == weights[:1]).all()) else on_device(weights, output.device)
    rows = max(1, pixels_at_once(output.device) // side**2)
    for start in range(0, len(passes), rows):
        part = slice(start, start + rows)
        few = passes.select(part)
        logits = segmenter.over_supports(output[part], weights[part], side).float()
        stitcher.add(few, segmenter.membership.probabilities(logits) if by_probability else logits, pixel_weights)
