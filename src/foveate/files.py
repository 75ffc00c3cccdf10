"""Writing results so that nothing half-written ever stands under its final name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foveate.errors import FoveateError, OutputExistsError, OutputWriteError


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise unless the path is free or may be replaced.

    Raises:
        OutputExistsError: when something is there and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; choose another output or pass --overwrite to replace it")


@contextmanager
def written(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it on success, remove it on any failure.

    The temporary name keeps the suffix, which some writers choose the format by.

    Raises:
        OutputExistsError: when `path` exists and `overwrite` is false.
        OutputWriteError: when writing failed, for example on a full disk.
    """
    refuse_existing(path, overwrite)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except FoveateError:
        raise  # says already what went wrong, for example a source that could not be read
    except OSError as error:
        raise OutputWriteError(f"could not write {path}: {error}; nothing was left under that name") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write a text file in one step: it is either the old one or the whole new one."""
    with written(path, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")
