"""Whether a file is shorter than it says itself: as after a download that broke off."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from foveate.errors import ImageReadError, reason_of

_log = logging.getLogger(__name__)
_told: set[tuple[Path, int]] = set()
# Where the pixels of a TIFF lie and how many bytes they have: strips and tiles.
_PLACES = {273: 279, 324: 325}
_FURTHER = 330  # directories within one
_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MOST_DIRECTORIES = 1000


def check_length(dataset: Any, path: Path) -> None:
    """Tell where a file is shorter than it says.

    Of a TIFF it is logged, once a process: reading what is missing is an error, the rest can be used. Bytes without a
    mark of their own are refused, as what is missing would be read as zeros.

    Args:
        dataset: the open file.
        path: of the file.

    Raises:
        ImageReadError: when bytes beside a header are fewer than it says.
    """
    size = path.stat().st_size
    if dataset.driver in ("ENVI", "EHdr") and "NBITS" not in dataset.tags(1, ns="IMAGE_STRUCTURE"):
        needed = dataset.height * dataset.width * sum(np.dtype(name).itemsize for name in dataset.dtypes)
        if size < needed:
            raise ImageReadError(
                f"{path} has {size} bytes and its header says {needed}: it is cut short; copy it again"
            )
    elif dataset.driver == "GTiff" and (path, size) not in _told:
        problem = _tiff_problem(path, size)
        if problem:
            _told.add((path, size))
            _log.warning("%s was cut short: %s; what is missing cannot be read. Copy it again", path, problem)


def _tiff_problem(path: Path, size: int) -> str:
    """What the directories of a TIFF name that the file does not have; empty where nothing is missing."""
    try:
        with path.open("rb") as file:
            ends = [end for entries in _directories(file) for end in _ends(entries)]
    except (struct.error, ValueError, KeyError, OSError, MemoryError) as error:
        return f"one of its directories cannot be read ({reason_of(error)})"
    last = max(ends, default=0)
    return f"it has {size} bytes, and its directories name pixels up to byte {last}" if last > size else ""


def _ends(entries: dict[int, np.ndarray[Any, Any]]) -> Iterator[int]:
    for place, count in _PLACES.items():
        if place in entries and count in entries and entries[place].size == entries[count].size > 0:
            yield int((entries[place] + entries[count]).max())


def _directories(file: IO[bytes]) -> Iterator[dict[int, np.ndarray[Any, Any]]]:
    """Entries that matter here of every directory, as 64-bit numbers."""
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    (version,) = struct.unpack(f"{order}H", file.read(2))
    big = version == 43
    file.seek(8 if big else 4)
    waiting, seen = [_number(file, order, big)], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        place = waiting.pop()
        if place == 0 or place in seen:
            continue
        seen.add(place)
        file.seek(place)
        (count,) = struct.unpack(f"{order}{'Q' if big else 'H'}", file.read(8 if big else 2))
        raw = file.read(count * (20 if big else 12))
        if len(raw) < count * (20 if big else 12):
            raise ValueError("it lies behind the end of the file")
        waiting.append(_number(file, order, big))
        entries = dict(_entries(file, raw, order, big))
        waiting.extend(entries.get(_FURTHER, np.empty(0, np.uint64)).tolist())
        yield entries


def _entries(
    file: IO[bytes], raw: bytes, order: str, big: bool
) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.uint64]]]]:
    step, inside = (20, 8) if big else (12, 4)
    for start in range(0, len(raw), step):
        tag, kind = struct.unpack_from(f"{order}HH", raw, start)
        if (tag not in _PLACES and tag not in _PLACES.values() and tag != _FURTHER) or kind not in _TYPES:
            continue
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", raw, start + 4)
        dtype = np.dtype(order + _TYPES[kind])
        value = raw[start + step - inside : start + step]
        if count * dtype.itemsize > inside:
            file.seek(struct.unpack(f"{order}{'Q' if big else 'I'}", value)[0])
            value = _whole(file, count * dtype.itemsize)
        yield tag, np.frombuffer(value, dtype, count).astype(np.uint64)


def _whole(file: IO[bytes], length: int) -> bytes:
    data = file.read(length) if length <= 1 << 30 else b""
    if len(data) < length:
        raise ValueError("a list of places lies behind the end of the file")
    return data


def _number(file: IO[bytes], order: str, big: bool) -> int:
    return int(struct.unpack(f"{order}{'Q' if big else 'I'}", file.read(8 if big else 4))[0])
