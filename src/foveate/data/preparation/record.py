"""What was prepared so far: one line a scene, so that an interrupted preparation can be continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foveate.data.preparation.output import Facts
from foveate.errors import OutputExistsError, OutputWriteError, reason_of
from foveate.files import write_text
from foveate.texts import read_text

MANIFEST = "manifest.csv"
_RECORD = "preparation.jsonl"


class Record:
    """The record of an output folder; its first line says what is prepared, and how.

    Args:
        out: the folder.
        settings: what the files depend on; plain values.
        overwrite: begin anew.

    Raises:
        OutputExistsError: when the folder holds a finished preparation, one with other settings, or other results, and
            `overwrite` is false.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self._out, self._path = out, out / _RECORD
        if overwrite:
            # Without the manifest an interrupted overwriting can be continued too.
            (out / MANIFEST).unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        else:
            self._refuse_others(settings)
        self.done = {facts.name: facts for facts in self._lines() if self._is_there(facts)}
        # Anew, as an interruption may have cut the last line.
        lines = [json.dumps(settings), *(json.dumps(asdict(facts)) for facts in self.done.values())]
        write_text(self._path, "\n".join(lines) + "\n", overwrite=True)

    def add(self, facts: Facts) -> None:
        """Remember a scene; on disk only when it did not fail, so that a failed one is tried again.

        Raises:
            OutputWriteError: for example on a full disk.
        """
        self.done[facts.name] = facts
        if not facts.failed:
            self._append(json.dumps(asdict(facts)) + "\n")

    def _append(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise OutputWriteError(f"could not write {self._path}: {error}; begin again to go on") from error

    def _refuse_others(self, settings: dict[str, Any]) -> None:
        advice = "choose another folder or pass --overwrite to begin anew"
        if (self._out / MANIFEST).exists():
            raise OutputExistsError(f"{self._out / MANIFEST} exists: this was prepared already; {advice}")
        if not self._path.exists():
            found = [name for name in ("images", "masks") if (self._out / name).exists()]
            if found:
                raise OutputExistsError(f"{self._out} holds {' and '.join(found)} of something else; {advice}")
            return
        before = self._settings()
        changed = [
            f"{key} was {before.get(key)!r}, is {value!r}"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if changed:
            raise OutputExistsError(f"{self._out} was begun with other settings ({'; '.join(changed)}); {advice}")

    def _settings(self) -> dict[str, Any]:
        first = self._text().partition("\n")[0]
        try:
            return dict(json.loads(first))
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputExistsError(
                f"{self._path} is damaged ({reason_of(error)}); begin anew with --overwrite"
            ) from None

    def _lines(self) -> Iterator[Facts]:
        if not self._path.exists():
            return
        for line in self._text().splitlines()[1:]:
            try:
                values = json.loads(line)
                yield Facts(**{**values, "pixels": tuple(values["pixels"])})
            except (ValueError, TypeError, KeyError, RecursionError):  # cut short by a kill, or damaged: made again
                continue

    def _text(self) -> str:
        return read_text(self._path, OutputExistsError, "begin anew with --overwrite", 1 << 30)

    def _is_there(self, facts: Facts) -> bool:
        return (self._out / facts.image).is_file() and (self._out / facts.mask).is_file()
