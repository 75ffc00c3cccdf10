"""What differs between two trees of plain values."""

from __future__ import annotations

from typing import Any

_ABSENT = object()


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """A line for every value that differs, such as "inference.overlap was 0.25, is now 0.5"."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in differences(
                before.get(key, _ABSENT), now.get(key, _ABSENT), f"{path}.{key}" if path else str(key)
            )
        ]
    return [] if before == now else [f"{path} was {_shown(before)}, is now {_shown(now)}"]


def _shown(value: Any) -> str:
    return "not given" if value is _ABSENT else repr(value)
