"""Looks: which windows of an image pass through the network, and what they cost; no pixel is read or computed here."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.looks.passes import PerTarget
    from foveate.looks.pyramid import PyramidGrid

__all__ = ["PerTarget", "PyramidGrid"]

__getattr__, __dir__ = door(__name__, __file__)
