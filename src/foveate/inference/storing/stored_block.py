"""A finished block as a file: written so that it is whole or not there, and read so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from foveate.errors import StoredBlockError
from foveate.files import sync_folder
from foveate.geometry import Window
from foveate.inference.cost import PeakMemory
from foveate.types import Raster

_ABOUT = "about.json"
_CHECKSUM_BYTES = 32
# Class maps shrink 20 times and more at the fastest setting; the slower ones save little of what is left.
_LEVEL = 1
# What reading bytes that are no block may raise.
_BROKEN = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


class StoredBlock(NamedTuple):
    """All that the results need of a block.

    Attributes:
        window: the block, level-0 pixels.
        layers: what is written, by name: arrays (h, w) or (bands, h, w).
        passes: patches that went through the network for it.
        peak: memory of the process that worked on it.
        failure: why its pixels could not be read; empty where they could.
        looked_at: number of pixels that a class was predicted for.
        skipped: passes that were not made, as nothing that they meet is looked at.
    """

    window: Window
    layers: dict[str, Raster]
    passes: int
    peak: PeakMemory
    failure: str = ""
    looked_at: int = 0
    skipped: int = 0


_LATER = ("failure", "looked_at", "skipped")


def save_block(path: Path, block: StoredBlock, plan: str, number: int) -> None:
    """Write a block: under another name, forced to the disk, then renamed.

    Args:
        path: final name.
        block: what to write.
        plan: name of the plan it belongs to, which reading must give again.
        number: of the block, as well.

    Raises:
        OSError: when that fails; nothing is left then.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        with partial.open("w+b") as file:
            _write(file, block, {"plan": plan, "number": number})
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_block(path: Path, plan: str, number: int) -> StoredBlock:
    """Read a block; its checksum is compared first, then whose it is.

    Raises:
        StoredBlockError: when the file is missing, torn, damaged, of another plan or another block.
    """
    try:
        with path.open("rb") as file:
            _check(file)
            with zipfile.ZipFile(file) as archive:
                about = json.loads(archive.read(_ABOUT))
                names = [name for name in archive.namelist() if name != _ABOUT]
                layers = {name: _read_array(archive, name) for name in names}
            place, peak = Window(*about["window"]), PeakMemory(*about["peak"])
            block = StoredBlock(place, layers, about["passes"], peak, *(about[name] for name in _LATER))
            plan_found, number_found = about["plan"], about["number"]
    except _BROKEN as error:
        raise StoredBlockError(f"{path} is torn or damaged ({error})") from error
    if plan_found != plan:
        raise StoredBlockError(f"{path} belongs to another run")
    if number_found != number:
        raise StoredBlockError(f"{path} holds block {number_found}, not block {number}: it was copied or renamed")
    return block


def _write(file: IO[bytes], block: StoredBlock, whose: dict[str, Any]) -> None:
    """The checksum of all that follows, then an archive: what is known about the block, and its layers."""
    about = block._asdict() | whose
    window = about["window"]
    about["window"] = [window.top, window.left, window.height, window.width]
    layers = about.pop("layers")
    file.seek(_CHECKSUM_BYTES)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.writestr(_ABOUT, json.dumps(about))
        for name, values in layers.items():
            with archive.open(name, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(values), allow_pickle=False)
    checksum = _checksum(file)
    file.seek(0)
    file.write(checksum)


def _check(file: IO[bytes]) -> None:
    found = file.read(_CHECKSUM_BYTES)
    if found != _checksum(file):
        raise ValueError("its checksum is wrong")


def _checksum(file: IO[bytes]) -> bytes:
    """Of all but the checksum itself: an archive has its own, but not for every byte."""
    file.seek(_CHECKSUM_BYTES)
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]  # any binary file will do


def _read_array(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
