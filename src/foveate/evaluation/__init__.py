"""Evaluation of labelled images: scores of blocks, and maps of errors."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.evaluation.evaluate import Evaluation

__all__ = ["Evaluation"]

__getattr__, __dir__ = door(__name__, __file__)
