"""FixedScale: the baseline that looks equally wide everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foveate.foveation.estimators.base import Draw, Estimator
from foveate.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class FixedScale(Estimator):
    """Always the same field of view, as in ordinary patch-based segmentation ("Patch 1..S" in the paper).

    Attributes:
        index: position of the field of view in the list; 0 is the narrowest.
        own_window: weight of a loss on the patch's whole window. With 0 the network learns only from the centre of the
            patch, over the target, which is a small part of a wide patch.
    """

    name: Literal["fixed"] = "fixed"
    index: int = Field(default=0, ge=0)
    own_window: float = Field(default=0.0, ge=0)

    @property
    def learns(self) -> bool:
        """Never: there is nothing to choose."""
        return False

    @property
    def own_window_weight(self) -> float:
        """Weight of the loss on the patch's whole window."""
        return self.own_window

    def scales_read(self, scales: int) -> tuple[int, ...]:
        """The one scale."""
        return (self.index,)

    def weights(self, logits: Tensor, draw: Draw) -> Tensor:
        """The same one-hot row for every location, (N, S)."""
        return self.inference_weights(logits)

    def inference_weights(self, logits: Tensor) -> Tensor:
        """The same one-hot row for every location, (N, S)."""
        weights = torch.zeros_like(logits, requires_grad=False)
        weights[:, self.index] = 1
        return weights
