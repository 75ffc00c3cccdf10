"""Changes to the bytes of a file, drawn at random."""

from __future__ import annotations

import random
import re


def changed(data: bytes, rng: random.Random, text: bool) -> tuple[str, bytes]:
    """What was done to the bytes, and what they are then."""
    name, change = rng.choice(_TEXT_CHANGES if text and rng.random() < 0.7 else _BYTE_CHANGES)
    for _ in range(rng.choice((1, 1, 1, 2, 5)) if name != "cut" else 1):
        data = change(data, rng)
    return name, data


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    # Half of the changes meet the first part of a file, where its headers are.
    place = rng.randrange(min(len(data), 600) if rng.random() < 0.5 else len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _extreme(data: bytes, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8))
    return data[:place] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length + data[place + length :]


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + int(rng.expovariate(1 / 40)))


def _remove(data: bytes, rng: random.Random) -> bytes:
    start, stop = _piece(data, rng)
    return data[:start] + data[stop:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, stop = _piece(data, rng)
    return data[:stop] + data[start:stop] * rng.choice((1, 3, 50)) + data[stop:]


def _noise(data: bytes, rng: random.Random) -> bytes:
    start, stop = _piece(data, rng)
    return data[:start] + rng.randbytes(stop - start) + data[stop:]


def _swap(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(_piece(data, rng) for _ in range(2))
    if a[1] > b[0]:
        return data
    return data[: a[0]] + data[slice(*b)] + data[a[1] : b[0]] + data[slice(*a)] + data[b[1] :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))] if data else data


def _value(data: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?|\"[^\"]*\"|true|false|null", data))
    if not found:
        return data
    match = rng.choice(found)
    value = rng.choice((
        b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"99999999999999999999999", b"1e-9", b"0.5", b"null", b"[]", b"{}",
        b'"text"', b"[1, [2, [3]]]", b'""', b"true", b"../../../etc/passwd", b'"\\u0000"', b"1" * 5000, b"[" * 2000,
    ))  # fmt: skip
    return data[: match.start()] + value + data[match.end() :]


def _line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    place = rng.randrange(len(lines))
    kind = rng.choice(("drop", "twice", "move"))
    line = lines[place] if kind == "twice" else lines.pop(place)
    if kind != "drop":
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"".join(lines)


def _letter(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    letters = (
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        '"',
        "'",
        "&a ",
        "*a",
        "$",
        "[/red]",
        "\t",
        "\n",
        "\0",
        "é",
        "- ",
        "<<: ",
        "!!",
    )
    return data[:place] + rng.choice(letters).encode() + data[place + rng.randrange(2) :]


def _encoding(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace") + rng.choice(("", "é"))
    return text.encode(rng.choice(("utf-16", "cp1252", "utf-8-sig", "utf-32")), "replace")


_BYTE_CHANGES = [
    ("flip", _flip), ("flip", _flip), ("extreme", _extreme), ("remove", _remove), ("repeat", _repeat),
    ("noise", _noise), ("swap", _swap), ("cut", _cut),
]  # fmt: skip
_TEXT_CHANGES = [("value", _value), ("value", _value), ("line", _line), ("letter", _letter), ("encoding", _encoding)]
