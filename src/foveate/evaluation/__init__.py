"""Evaluation of labelled images: scores of blocks, maps of errors, and what `foveate tune` computes from samples."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.evaluation.evaluate import Evaluation

__all__ = ["Evaluation"]

__getattr__, __dir__ = door(__name__, __file__)
