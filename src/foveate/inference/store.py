"""The finished blocks of one image, kept on disk until all are there; the files are the journal."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from foveate.config_base import ConfigTree
from foveate.errors import ConfigError, FoveateError, OutputExistsError, OutputWriteError, StoredBlockError
from foveate.files import sync_folder, write_text
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.cost import PeakMemory
from foveate.inference.layers import Layers
from foveate.locks import locked_folder
from foveate.texts import read_json
from foveate.writers.cog import Piece, Place, TiledLayer

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
        layers: what is written, by name: arrays (h, w) or (bands, h, w), or those cut into tiles.
        passes: patches that went through the network for it.
        peak: memory of the process that worked on it.
        failure: why its pixels could not be read; empty where they could.
        looked_at: number of pixels that a class was predicted for.
        skipped: passes that were not made, as nothing that they meet is looked at.
        class_pixels: how many pixels each class has.
    """

    window: Window
    layers: Layers
    passes: int
    peak: PeakMemory
    failure: str = ""
    looked_at: int = 0
    skipped: int = 0
    class_pixels: Sequence[int] = ()


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
        with suppress(OSError):
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
                layers = {name: _read_layer(archive, name, about["tiles"].get(name)) for name in names}
            place, peak = Window(*about["window"]), PeakMemory(*about["peak"])
            later = (*(about[name] for name in _LATER), tuple(about["class_pixels"]))
            block = StoredBlock(place, layers, about["passes"], peak, *later)
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
    tiled = {name: layer for name, layer in layers.items() if isinstance(layer, TiledLayer)}
    about["tiles"] = {name: _index(layer) for name, layer in tiled.items()}
    file.seek(_CHECKSUM_BYTES)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.writestr(_ABOUT, json.dumps(about))
        for name, values in layers.items():
            if isinstance(values, TiledLayer):
                data = b"".join(piece.data for piece in values.pieces.values())
                archive.writestr(name, data, zipfile.ZIP_STORED)  # compressed already
                continue
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


def _index(layer: TiledLayer) -> dict[str, Any]:
    """What tells the pieces of a layer from one another in the bytes of all."""
    pieces = [[*place, *astuple(piece.window), piece.whole, len(piece.data)] for place, piece in layer.pieces.items()]
    return {"levels": layer.levels, "pieces": pieces}


def _read_layer(archive: zipfile.ZipFile, name: str, index: dict[str, Any] | None) -> Any:
    """An array, or where there is an index its tiles."""
    if index is not None:
        data, start, pieces = archive.read(name), 0, {}
        for level, row, col, top, left, height, width, whole, length in index["pieces"]:
            window = Window(top, left, height, width)
            pieces[Place(level, row, col)] = Piece(window, data[start : start + length], whole)
            start += length
        return TiledLayer(index["levels"], pieces)
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


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


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NAME = re.compile(r"([0-9]{8,})\.block", re.ASCII)


def _ignore(text: str) -> None:
    del text


class BlockStore:
    """A folder beside the results with one file for every finished block.

    A block's file is whole or not there, so the set of files says what is done. `plan.json` holds everything that
    decides their bytes. Made by `leading` for the one process that also writes the results, by `joining` for others.

    Args:
        path: the folder.
        plan: everything that decides the bytes of the results, as plain values.
        total: number of blocks.
    """

    def __init__(self, path: Path, plan: ConfigTree, total: int) -> None:
        self.path, self.total = path, total
        self._plan: ConfigTree = _plain(plan)
        self._digest = hashlib.sha256(json.dumps(self._plan, sort_keys=True).encode()).hexdigest()

    @classmethod
    @contextmanager
    def leading(
        cls,
        path: Path,
        plan: ConfigTree,
        total: int,
        *,
        resume: bool,
        overwrite: bool,
        tell: Callable[[str], None] = _ignore,
    ) -> Iterator[BlockStore]:
        """Open the store for the process that leads; no other can meanwhile.

        A store that holds no block once the context ends with an error is removed.

        Args:
            path: the folder.
            plan: see the class.
            total: number of blocks.
            resume: go on with the blocks that are there.
            overwrite: discard them.
            tell: told which of them cannot be used, as they are not what was stored.

        Raises:
            OutputInUseError: when another process leads.
            OutputExistsError: when blocks are there and neither `resume` nor `overwrite` is set.
            ConfigError: when they were made by another plan, saying what changed.
            OutputWriteError: when the folder cannot be written.
        """
        store = cls(path, plan, total)
        with ExitStack() as stack:
            stack.enter_context(locked_folder(path, "lock"))
            with _writing_to(path.parent):
                store._prepare(resume, overwrite, tell)
            try:
                yield store
            finally:
                if not store.finished():
                    store.remove()

    @classmethod
    def joining(cls, path: Path, plan: ConfigTree, total: int) -> BlockStore | None:
        """The store that another process leads; None when it is gone, as all is done.

        Raises:
            ConfigError: when that works by another plan, saying what differs.
        """
        store = cls(path, plan, total)
        if not (path / "plan.json").exists():
            return None
        store._check_plan(f"the process that leads at {path} works on something else")
        return store

    @property
    def digest(self) -> str:
        """Name of the plan: equal for equal plans."""
        return self._digest

    @property
    def plan(self) -> ConfigTree:
        """The plan, as plain values."""
        return self._plan

    @property
    def assembled(self) -> Path:
        """Folder for the results while they are written; on the same file system as their final place."""
        return self.path / "assembled"

    def finished(self) -> set[int]:
        """Numbers of the blocks that are there."""
        try:
            found = {self._number(path.name) for path in (self.path / "blocks").iterdir()}
        except FileNotFoundError:
            return set()
        return {number for number in found if number is not None}

    def missing(self) -> list[int]:
        """Numbers of the blocks that are not there, ascending; none once the store itself is gone."""
        done = self.finished()
        return [n for n in range(self.total) if n not in done] if self.path.exists() else []

    def has(self, number: int) -> bool:
        """Whether a block is there."""
        return self._file(number).exists()

    def put(self, number: int, block: StoredBlock) -> None:
        """Keep a finished block.

        Raises:
            OutputWriteError: when that fails, for example on a full disk.
        """
        try:
            save_block(self._file(number), block, self._digest, number)
        except OSError as error:
            if self.path.exists():  # else the results are complete, as another process made this block too
                raise OutputWriteError(self._cannot_write(error)) from error

    def get(self, number: int) -> StoredBlock:
        """A finished block.

        Raises:
            StoredBlockError: when it is missing or damaged.
        """
        try:
            return load_block(self._file(number), self._digest, number)
        except StoredBlockError as error:
            raise StoredBlockError(f"{error}; run the same command with --resume: it makes that block anew") from error

    def remove(self) -> None:
        """Remove the store; first what says that there is one."""
        (self.path / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.path / "blocks" / f"{number:08d}.block"

    def _number(self, name: str) -> int | None:
        """Of the block that is kept under a name; None where no block is called so."""
        found = _NAME.fullmatch(name)
        number = self.total if found is None else int(found[1])
        return number if number < self.total and name == self._file(number).name else None

    def _prepare(self, resume: bool, overwrite: bool, tell: Callable[[str], None]) -> None:
        kept = resume and self._has_work()
        if kept:
            self._check_plan(f"{self.path} holds blocks of another run")
        elif self._has_work() and not overwrite:
            raise OutputExistsError(
                f"{self.path} holds {len(self.finished())} of {self.total} blocks of an interrupted run; run the same "
                f"command with --resume to go on, or with --overwrite to start anew"
            )
        self._clear([] if kept else ["blocks"])
        for name in ("blocks", "claims", "workers"):
            (self.path / name).mkdir(exist_ok=True)
        write_text(self.path / "plan.json", json.dumps(self._plan, indent=2) + "\n", overwrite=True)
        sync_folder(self.path)
        self._discard_unusable(tell)

    def _has_work(self) -> bool:
        return (self.path / "plan.json").exists() and bool(self.finished())

    def _check_plan(self, problem: str) -> None:
        found = read_json(self.path / "plan.json", ConfigError, "start anew with --overwrite")
        changed = differences(found, self._plan)
        if changed:
            raise ConfigError(
                f"{problem}: " + "; ".join(changed) + "; go on with what it was, or start anew with --overwrite"
            )

    def _clear(self, also: list[str]) -> None:
        """Remove what a process that ended left behind."""
        for name in ("claims", "workers", "assembled", *also):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _discard_unusable(self, tell: Callable[[str], None]) -> None:
        """Remove files that were never completed, blocks whose pixels could not be read, and what was not stored so."""
        wrong = []
        for path in sorted((self.path / "blocks").iterdir()):
            problem = self._problem(path)
            if problem is None:
                continue
            if problem:
                wrong.append(problem)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            tell(f"{wrong[0]}{more}; what cannot be used is removed, and its blocks are made anew")

    def _problem(self, path: Path) -> str | None:
        """Why a file cannot be used; empty where that is no wonder, None where it can."""
        number = self._number(path.name)
        if number is None:
            return "" if path.suffix == ".new" else f"{path} is not what a block is called"
        try:
            return "" if load_block(path, self._digest, number).failure else None
        except StoredBlockError as error:
            return str(error)

    def _cannot_write(self, error: OSError) -> str:
        reason = "the disk is full" if error.errno in _FULL else str(error)
        return (
            f"could not write to {self.path}: {reason}; {len(self.finished())} of {self.total} blocks are stored: "
            f"{'make room' if error.errno in _FULL else 'put that right'} and run the same command with --resume"
        )


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Turn what the file system says about a folder into `OutputWriteError`."""
    try:
        yield
    except FoveateError:
        raise
    except OSError as error:
        raise OutputWriteError(f"cannot write to {folder}: {error}; choose another --out") from error


def _plain(tree: ConfigTree) -> Any:
    """The tree as JSON gives it back, so that it compares equal to a saved one."""
    return json.loads(json.dumps(tree))


# What is written is compressed: rasters of large areas of one class shrink a hundred times, noise not at all. Blocks,
# plain and optimised rasters are there together for a moment, and overviews add a third.
_LEAST, _MOST = 0.01, 3.4


def check_space(
    store: BlockStore, size: Size, classes: int, config: InferenceConfig, tell: Callable[[str], None]
) -> None:
    """Refuse where even the least that the results may need is not free; warn where the most is not.

    Raises:
        OutputWriteError: when the disk is too full.
    """
    layers = sum(classes if name == "probabilities" else 1 for name in config.outputs if name != "polygons")
    share = len(store.missing()) / store.total
    raw, free = size.pixels * layers * share, shutil.disk_usage(store.path).free
    if free < _LEAST * raw:
        raise OutputWriteError(
            f"{store.path.parent} has {_gib(free)} free and the results need {_gib(_LEAST * raw)} at the very least; "
            "make room or choose another --out"
        )
    if free < _MOST * raw:
        tell(
            f"{store.path.parent} has {_gib(free)} free; the results may need up to {_gib(_MOST * raw)}. Should the "
            "disk get full, what is finished is kept for --resume"
        )


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"
