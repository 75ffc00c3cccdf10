"""The finished blocks of one image, kept on disk until all are there; the files are the journal."""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from foveate.config_base import ConfigTree, differences
from foveate.errors import ConfigError, FoveateError, OutputExistsError, OutputWriteError, StoredBlockError
from foveate.files import sync_folder, write_text
from foveate.geometry import Size
from foveate.inference.block import StoredBlock, load_block, save_block
from foveate.inference.config import InferenceConfig
from foveate.processes import locked_folder
from foveate.texts import read_json, size_text

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NAME = re.compile(r"([0-9]{8,})\.block", re.ASCII)


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
        tell: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Self]:
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
    def joining(cls, path: Path, plan: ConfigTree, total: int) -> Self | None:
        """The store that another process leads; None when it is gone, as all is done.

        Raises:
            ConfigError: when that works by another plan, saying what differs.
        """
        store = cls(path, plan, total)
        if not (path / "plan.json").exists():
            return None
        store._check_plan(f"the leading process at {path} works on another job")
        return store

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
                raise OutputWriteError(self.cannot_write(error)) from error

    def get(self, number: int) -> StoredBlock:
        """A finished block.

        Raises:
            StoredBlockError: when it is missing or damaged.
        """
        try:
            return load_block(self._file(number), self._digest, number)
        except StoredBlockError as error:
            raise StoredBlockError(f"{error}; repeat the command with --resume to compute that block again") from error

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
                f"{self.path} holds {len(self.finished())} of {self.total} blocks of an interrupted run; repeat the "
                "command with --resume to continue, or with --overwrite to start again"
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
        found = read_json(self.path / "plan.json", ConfigError, "start again with --overwrite")
        changed = [line for _, line in differences(found, self._plan)]
        if changed:
            raise ConfigError(
                f"{problem}: " + "; ".join(changed) + "; restore it to continue, or start again with --overwrite"
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
            tell(f"{wrong[0]}{more}; unusable files are removed and their blocks are computed again")

    def _problem(self, path: Path) -> str | None:
        """Why a file cannot be used; empty where that is no wonder, None where it can."""
        number = self._number(path.name)
        if number is None:
            return "" if path.suffix == ".new" else f"{path} is not the name of a block"
        try:
            return "" if load_block(path, self._digest, number).failure else None
        except StoredBlockError as error:
            return str(error)

    def cannot_write(self, error: OSError) -> str:
        """What is said of a block that could not be kept."""
        reason = "the disk is full" if error.errno in _FULL else str(error)
        return (
            f"could not write to {self.path}: {reason}; {len(self.finished())} of {self.total} blocks are stored: "
            f"{'free some space' if error.errno in _FULL else 'fix this'} and repeat the command with --resume"
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
    least, most = size_text(_LEAST * raw), size_text(_MOST * raw)
    there = f"{store.path.parent} has {size_text(free)} free"
    if free < _LEAST * raw:
        raise OutputWriteError(
            f"{there}, but the results need at least {least}; free some space or choose another --out"
        )
    if free < _MOST * raw:
        tell(f"{there}; the results may need up to {most}. If the disk fills up, finished blocks are kept for --resume")
