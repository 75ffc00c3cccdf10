"""The paper's data sets: `prepare` makes manifests, masks of class ids and pyramids of the official downloads."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, is_dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from foveate.data.sections import Split, assign_splits
from foveate.errors import DatasetError, OutputExistsError, OutputWriteError, WorkerError, reason_of
from foveate.files import write_text
from foveate.paper.preparation.data_sets import Cityscapes, DeepGlobe, Gleason2019
from foveate.paper.preparation.scenes import Facts, Recipe, Scene, Writer
from foveate.processes import follow_leader
from foveate.texts import read_text

__all__ = ["Cityscapes", "DeepGlobe", "Gleason2019", "Oddity", "Recipe", "Scene", "Summary", "prepare"]

_T = TypeVar("_T")
_MANIFEST, _RECORD = "manifest.csv", "preparation.jsonl"


class Oddity(NamedTuple):
    """Something unusual.

    Attributes:
        images: how many images show it.
        pixels: how many pixels it concerns; 0 where it is not about pixels.
        example: one of the images.
    """

    images: int
    pixels: int
    example: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What was prepared.

    Attributes:
        manifest: the file written.
        images: number of images by split.
        pixels: labelled pixels by class name.
        ignored: pixels without a class.
        odd: what was unusual; what is not about pixels first, then by their number.
        left_out: reasons for which images were not used, with their names.
        failed: images whose files could not be read, with the reason.
        unknown: entries of the split lists that name no usable image.
        drawn: how many splits were drawn by a hash of the name, as nothing else gave them.
    """

    manifest: Path
    images: dict[Split, int]
    pixels: dict[str, int]
    ignored: int
    odd: dict[str, Oddity]
    left_out: dict[str, list[str]]
    failed: dict[str, str]
    unknown: tuple[str, ...]
    drawn: int


def prepare(
    recipe: Recipe,
    source: Path,
    out: Path,
    *,
    split_lists: Mapping[Split, Path] | None = None,
    pyramid: bool = False,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Summary:
    """Write `out/manifest.csv` and `out/masks`, and with `pyramid` also `out/images`.

    Paths in the manifest are relative to it; without `pyramid` it names the images of the download. What was prepared
    is kept in `out/preparation.jsonl`: an interrupted preparation that is begun again goes on.

    Args:
        recipe: `Cityscapes()`, `DeepGlobe()`, `Gleason2019()` or one of your own.
        source: folder of the download.
        out: folder of the results; made when missing.
        split_lists: files that name the images of a split, by key of the recipe; images in none are left out.
        pyramid: convert images and masks to tiled TIFF pyramids, without loss.
        jobs: images worked on at a time, each in its own process and held whole with its label files.
        overwrite: begin anew where something was prepared already.
        progress: called with the share done, from 0 to 1.

    Raises:
        DatasetError: when the download is not laid out as it should be, or nothing could be prepared.
        OutputExistsError: when `out` holds something else or a finished preparation, and `overwrite` is false.
        OutputWriteError: when writing failed.
        WorkerError: when a process was killed, for example for lack of memory.
    """
    scenes, unknown, drawn = _with_splits(_checked(recipe, source), recipe, split_lists or {})
    used = [scene for scene in scenes if not scene.left_out]
    if not used:
        raise DatasetError(f"no image in {source} can be used: {scenes[0].left_out}")
    options: dict[str, Any] = asdict(recipe) if is_dataclass(recipe) and not isinstance(recipe, type) else {}
    settings = {"data_set": recipe.name, "source": str(source.resolve()), "pyramid": pyramid, **options}
    done = _begun(out, settings, overwrite=overwrite)
    todo = [scene for scene in used if scene.name not in done]
    for count, facts in enumerate(_each(Writer(recipe, out, pyramid), todo, jobs), start=len(used) - len(todo) + 1):
        done[facts.name] = facts
        _note(out / _RECORD, facts)
        progress(count / len(used))
    _write_manifest(out / _MANIFEST, used, done, source)
    progress(1.0)
    ready = [done[scene.name] for scene in used if not done[scene.name].failed]
    return Summary(
        manifest=out / _MANIFEST,
        images=dict(Counter(scene.split for scene in used if scene.split and not done[scene.name].failed)),
        pixels={name: sum(each.pixels[index] for each in ready) for index, name in enumerate(recipe.classes)},
        ignored=sum(each.ignored for each in ready),
        odd=_oddities(ready),
        left_out=_grouped((scene.left_out, scene.name) for scene in scenes if scene.left_out),
        failed={scene.name: done[scene.name].failed for scene in used if done[scene.name].failed},
        unknown=unknown,
        drawn=drawn,
    )


def _checked(recipe: Recipe, source: Path) -> list[Scene]:
    if not source.is_dir():
        raise DatasetError(f"no folder {source}; give the folder of the download of {recipe.name}")
    scenes = list(recipe.scenes(source))
    repeated = sorted(name for name, count in Counter(scene.name for scene in scenes).items() if count > 1)
    if not scenes:
        raise DatasetError(f"no image in {source}; give the folder the download of {recipe.name} was unpacked into")
    if repeated:
        raise DatasetError(f"{source} holds several images of one name, such as {repeated[0]}; keep one of each")
    return scenes


def _with_splits(
    scenes: list[Scene], recipe: Recipe, lists: Mapping[Split, Path]
) -> tuple[list[Scene], tuple[str, ...], int]:
    """Scenes with a split or a reason to leave them out, entries of lists that name none, and the splits drawn."""
    if not lists:
        drawn = assign_splits([one.name for one in scenes if one.split is None and not one.left_out], recipe.draw)
        return [replace(scene, split=drawn.get(scene.name, scene.split)) for scene in scenes], (), len(drawn)
    splits: dict[str, Split] = {}
    unknown = []
    usable = {scene.key for scene in scenes if not scene.left_out}
    for split, path in lists.items():
        for entry in _entries(path):
            key = recipe.key(Path(entry).name)
            if key not in usable:
                unknown.append(entry)
            elif splits.setdefault(key, split) != split:
                raise DatasetError(f"{entry} is in the lists of both {splits[key]} and {split}; keep one")
    if not splits:
        raise DatasetError(f"none of the names in {', '.join(map(str, lists.values()))} is an image of {recipe.name}")
    return [_placed(scene, splits.get(scene.key)) for scene in scenes], tuple(unknown), 0


def _placed(scene: Scene, split: Split | None) -> Scene:
    if scene.left_out:
        return scene
    return replace(scene, split=split, left_out="" if split else "in none of the split lists")


def _entries(path: Path) -> list[str]:
    """Names in a list: one a line, or the images of JSON lines such as the original's `.odgt`."""
    if not path.is_file():
        raise DatasetError(f"no split list at {path}")
    lines = [line.strip() for line in read_text(path, DatasetError, "give the list as it was downloaded").splitlines()]
    return [_image_of(line, path) if line.startswith("{") else line for line in lines if line]


def _image_of(line: str, path: Path) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} holds a line that starts like JSON and is not: {reason_of(error)}") from None
    image = record.get("image") or record.get("fpath_img")
    if not isinstance(image, str):
        raise DatasetError(f"{path} holds a line without 'image' or 'fpath_img': {line}")
    return image


def _begun(out: Path, settings: dict[str, Any], *, overwrite: bool) -> dict[str, Facts]:
    """What an interrupted preparation has done, by name; its record goes on, or is begun.

    The first line of the record says what is prepared, and how; a line for each image follows.
    """
    path = out / _RECORD
    if overwrite:
        # Without the manifest an interrupted overwriting can be continued too.
        (out / _MANIFEST).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    text = read_text(path, OutputExistsError, "start again with --overwrite", 1 << 30) if path.exists() else None
    if not overwrite:
        _refuse_others(out, settings, text)
    found = filter(None, map(_facts, (text or "").splitlines()[1:]))
    done = {one.name: one for one in found if (out / one.image).is_file() and (out / one.mask).is_file()}
    # Anew, as an interruption may have cut the last line.
    lines = [settings, *map(asdict, done.values())]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines), overwrite=True)
    return done


def _refuse_others(out: Path, settings: dict[str, Any], recorded: str | None) -> None:
    advice = "choose another folder or pass --overwrite to start again"
    if (out / _MANIFEST).exists():
        raise OutputExistsError(f"{out / _MANIFEST} exists: this was prepared already; {advice}")
    if recorded is None:
        found = [name for name in ("images", "masks") if (out / name).exists()]
        if found:
            raise OutputExistsError(f"{out} holds {' and '.join(found)} of something else; {advice}")
        return
    try:
        before = dict(json.loads(recorded.partition("\n")[0]))
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"{out / _RECORD} is damaged ({reason_of(error)}); start again with --overwrite"
        raise OutputExistsError(problem) from None
    changed = [f"{key} was {before.get(key)!r}, is {now!r}" for key, now in settings.items() if before.get(key) != now]
    if changed:
        raise OutputExistsError(f"{out} was begun with other settings ({'; '.join(changed)}); {advice}")


def _facts(line: str) -> Facts | None:
    """Of a line of the record; None where a kill cut it short, or it is damaged: that image is made again."""
    try:
        values = json.loads(line)
        return Facts(**{**values, "pixels": tuple(values["pixels"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _note(path: Path, facts: Facts) -> None:
    """Add an image to the record where it did not fail, so that one that failed is tried again."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("" if facts.failed else json.dumps(asdict(facts)) + "\n")
    except OSError as error:
        raise OutputWriteError(f"could not write {path}: {error}; repeat the command to continue") from error


def _each(work: Writer, scenes: list[Scene], jobs: int) -> Iterator[Facts]:
    if jobs == 1 or len(scenes) < 2:
        yield from map(work, scenes)
        return
    # Not forked: torch and GDAL have threads by now, and a fork of them may hang.
    workers = min(jobs, len(scenes))
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=follow_leader, initargs=(os.getpid(),))
    try:
        for future in as_completed([pool.submit(work, scene) for scene in scenes]):
            yield future.result()
    except BrokenExecutor:
        raise WorkerError(
            f"one of {jobs} processes was killed, probably for lack of memory; begin again with fewer jobs: what is "
            f"finished is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _write_manifest(path: Path, scenes: list[Scene], done: Mapping[str, Facts], source: Path) -> None:
    ready = [(scene, done[scene.name]) for scene in scenes if not done[scene.name].failed]
    if not ready:
        raise DatasetError(f"no image in {source} could be prepared: {done[scenes[0].name].failed}")
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "mask", "split"])
    rows.writerows([facts.image, facts.mask, scene.split] for scene, facts in ready)
    write_text(path, text.getvalue())


def _oddities(facts: list[Facts]) -> dict[str, Oddity]:
    found = _grouped((kind, each) for each in facts for kind in each.odd)
    odd = {
        kind: Oddity(len(those), sum(each.odd[kind] for each in those), those[0].name) for kind, those in found.items()
    }
    return dict(sorted(odd.items(), key=lambda item: (item[1].pixels > 0, -item[1].pixels, item[0])))


def _grouped(pairs: Iterable[tuple[str, _T]]) -> dict[str, list[_T]]:
    groups: dict[str, list[_T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
