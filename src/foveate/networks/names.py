"""Names of encoders as people write them, and the nearest ones to a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import segmentation_models_pytorch as smp
import timm

from foveate.errors import NetworkError

_SHOWN = 12


def canonical(name: str) -> str:
    """Lower case, with `_` for `-`."""
    return name.lower().replace("-", "_")


def library_encoders() -> list[str]:
    """The encoders of segmentation_models_pytorch and of timm, sorted."""
    # Those with timm- are deprecated copies of what timm has itself.
    own = {name for name in smp.encoders.get_encoder_names() if not name.startswith("timm-")}
    return sorted(own | set(timm.list_models()))


def timm_or_smp_name(name: str, known: Iterable[str] = ()) -> str:
    """The name segmentation_models_pytorch knows an encoder by; timm's own have the prefix tu-.

    Args:
        name: as written; a prefix `tu-` or `timm-` asks for timm's where both libraries have it.
        known: further names to offer when there is none of this name.

    Raises:
        NetworkError: when there is none, with the nearest names.
    """
    plain = name.lower().removeprefix("tu-").removeprefix("timm-")
    spellings = dict.fromkeys((plain, plain.replace("-", "_"), plain.replace("_", "-")))
    if plain == name.lower():
        for spelling in spellings:
            if spelling in smp.encoders.get_encoder_names():
                return spelling
    for spelling in spellings:
        if timm.is_model(spelling):
            return f"tu-{spelling}"
    raise NetworkError(f"unknown encoder {name!r}; {nearest(plain, {*known, *library_encoders()})}")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say about a name that is not known: the nearest ones, or else some."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known are {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
