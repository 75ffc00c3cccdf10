"""Lengths with a unit: "0.5 um" in a configuration, metres in code."""

from __future__ import annotations

import re

from foveate.errors import ConfigError

# Both ways to write the micro sign are in use: U+00B5 and the Greek letter U+03BC.
METRES = {
    "nm": 1e-9, "um": 1e-6, "\N{MICRO SIGN}m": 1e-6, "\N{GREEK SMALL LETTER MU}m": 1e-6,
    "mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3,
}  # fmt: skip
# From how many of a unit on it is used: "0.3 m" and "0.5 um" are what people write beside images.
_SHOWN = {"km": 1, "m": 0.1, "mm": 1, "um": 0.01}
_LENGTH = re.compile(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([^\W\d]+)\s*")


def metres(text: str) -> float:
    """The length that a text such as "0.5 um" means, in metres.

    Args:
        text: a positive number and one of nm, um (or µm), mm, cm, m, km.

    Raises:
        ConfigError: when it is anything else.
    """
    found = _LENGTH.fullmatch(text)
    unit = METRES.get(found[2]) if found else None
    value = _number(found[1]) if found else 0.0
    if unit is None or not 0 < value < float("inf"):
        raise ConfigError(f"{text!r} is no length; give a positive number and a unit (nm, um, mm, cm, m, km): '0.5 um'")
    return value * unit


def length(value: float) -> str:
    """Metres as a short text that `metres` reads back, to nine digits: "0.5 um"."""
    unit = next((name for name, least in _SHOWN.items() if value >= least * METRES[name]), "nm")
    return f"{value / METRES[unit]:.9g} {unit}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
