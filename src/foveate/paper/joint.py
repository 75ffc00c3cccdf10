"""Comparators that see a place and its surroundings in one pass: GLNet's two branches, and a squeezed surround."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimator import Criterion, Joint, Labelled, LocationOutput, LossParts, Passing, Reading
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from foveate.patches.scales import ScaleSet


class GLNet(Joint):
    """A global and a local branch that share features both ways: ours after GLNet, for comparison.

    Each branch has a network of its own: the local one sees the narrowest patch of a place, the global one the widest.
    After the encoders, at every stage, each gets the other's features of the same part of the image; the prediction is
    made of the last maps of both decoders. GLNet's global branch sees the whole image, shrunk, and its branches are
    trained one after the other; here it sees the widest patch, and both learn together. A pass goes through both
    networks: it costs two of a fixed field of view.

    Attributes:
        own_window: weight of the global branch's loss on its own whole window.

    Source: Chen et al., "Collaborative Global-Local Networks" (CVPR 2019), arXiv 1905.06368.
    """

    name: Literal["glnet"] = "glnet"
    own_window: float = Field(default=1.0, ge=0)

    def reads(self, scales: int) -> Reading:
        """The narrowest and the widest, which each pass through a network, and the labels of their windows."""
        return super().reads(scales)._replace(passes=2, windows=True)

    def joined(self, patches: Tensor, scales: ScaleSet) -> Tensor:
        """Side by side, (N, C, P, 2 P)."""
        return torch.cat([patches[:, 0], patches[:, 1]], dim=-1)

    def around(self, network: nn.Module, scales: ScaleSet) -> nn.Module:
        """The two branches, see `Branches`."""
        made: nn.Module = import_module("foveate.paper.networks").Branches(
            network, scales.target / scales.fields_of_view[-1]
        )
        return made

    def loss(self, model: Passing, output: LocationOutput, batch: Labelled, criterion: Criterion) -> LossParts:
        """Of both and of the local branch over the target, and of the global branch over its window."""
        local, wide = output.auxiliary
        loss = criterion.of_heads((output.logits, local), batch.label)
        own = criterion.of_heads((wide,), batch.window_labels[:, -1]).total
        return LossParts(loss.total + self.own_window * own, loss.parts | {"own_window": own.detach()})


class Squeezed(Joint):
    """One patch whose middle is sharp, and whose rim holds the surroundings, squeezed: ours, for comparison.

    The middle is the narrowest patch at `sharp` of its resolution. From there to the border the widest window is
    squeezed, evenly along rows and columns, so that the patch has one size and costs one pass.

    Attributes:
        sharp: side of the middle, as a share of the patch's.

    Source: ours, after the idea of SCPSeg, a surround that is squeezed into the rim of one input.
    """

    name: Literal["squeezed"] = "squeezed"
    sharp: float = Field(default=0.75, gt=0, lt=1)

    def joined(self, patches: Tensor, scales: ScaleSet) -> Tensor:
        """The squeezed patch, (N, C, P, P)."""
        (narrow, wide), side = patches.unbind(dim=1), patches.shape[-1]
        middle, share = self._middle(side), scales.target / scales.fields_of_view[-1]
        rim = (side - middle) // 2
        # As many pixels as the rim can show, so that nothing is aliased.
        shown = max(1, round(2 * rim / (1 - share)))
        at = _squeezed(rim, middle, share).to(patches.device)
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).expand(len(patches), -1, -1, -1)
        small = _resized(wide, min(shown, side))
        squeezed = torch.nn.functional.grid_sample(small, grid, padding_mode="border", align_corners=False)
        squeezed[..., rim : side - rim, rim : side - rim] = _resized(narrow, middle)
        return squeezed

    def around(self, network: nn.Module, scales: ScaleSet) -> nn.Module:
        """The network, of whose logits the middle is kept."""
        share = self._middle(scales.patch_size) / scales.patch_size
        made: nn.Module = import_module("foveate.paper.networks").Middle(network, share)
        return made

    def _middle(self, side: int) -> int:
        """Side of the middle in pixels, of a patch of this side."""
        return side - 2 * max(1, round((1 - self.sharp) * side / 2))


def _squeezed(rim: int, middle: int, share: float) -> Tensor:
    """Where in the wide window, from -1 to 1, the pixels of a row lie: rim, middle, rim."""
    outside = (torch.arange(rim) + 0.5) / rim * (1 - share) + share
    inside = ((torch.arange(middle) + 0.5) / middle * 2 - 1) * share
    return torch.cat([-outside.flip(0), inside, outside])


def _resized(patches: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(
        patches, size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )
