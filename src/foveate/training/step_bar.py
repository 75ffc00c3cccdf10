"""The progress bar of a training that is counted in steps."""

from __future__ import annotations

from lightning.pytorch.callbacks import RichProgressBar


class StepBar(RichProgressBar):
    """Lightning's bar, which would count epochs: there are none here, and it showed "Epoch 0/-2"."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"
