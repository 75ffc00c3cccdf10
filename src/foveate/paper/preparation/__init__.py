"""The paper's data sets: `prepare` makes manifests, masks of class ids and pyramids of the official downloads."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, is_dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

from foveate.data.sections import Split, assign_splits
from foveate.errors import DatasetError, WorkerError, reason_of
from foveate.files import write_text
from foveate.paper.preparation.data_sets import Cityscapes, DeepGlobe, Gleason2019
from foveate.paper.preparation.masks import Mask, Recipe, Scene
from foveate.paper.preparation.output import MANIFEST, Facts, Record, Writer
from foveate.processes import follow_leader
from foveate.texts import read_text

__all__ = ["Cityscapes", "DeepGlobe", "Gleason2019", "Mask", "Oddity", "Recipe", "Scene", "Summary", "prepare"]

NOT_LISTED = "in none of the split lists"
Progress: TypeAlias = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Splitting:
    """Scenes whose split is known, and what was unusual about it.

    Attributes:
        scenes: each with a split or a reason to leave it out.
        unknown: entries of the lists that name no usable scene.
        drawn: how many splits were drawn by a hash of the name.
    """

    scenes: tuple[Scene, ...]
    unknown: tuple[str, ...] = ()
    drawn: int = 0


def split_scenes(scenes: Iterable[Scene], recipe: Recipe, lists: Mapping[Split, Path]) -> Splitting:
    """Give every scene its split.

    Args:
        scenes: of a download.
        recipe: of that download.
        lists: files that name the scenes of a split; with any of them, scenes in none are left out.

    Raises:
        DatasetError: when a list is missing, names a scene that another one names, or the lists name no scene at all.
    """
    scenes = tuple(scenes)
    return _listed(scenes, recipe, lists) if lists else _drawn(scenes, recipe)


def _drawn(scenes: tuple[Scene, ...], recipe: Recipe) -> Splitting:
    open_ones = [scene.name for scene in scenes if scene.split is None and not scene.left_out]
    splits = assign_splits(open_ones, recipe.draw)
    return Splitting(
        tuple(replace(scene, split=splits.get(scene.name, scene.split)) for scene in scenes), drawn=len(open_ones)
    )


def _listed(scenes: tuple[Scene, ...], recipe: Recipe, lists: Mapping[Split, Path]) -> Splitting:
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
    return Splitting(tuple(_placed(scene, splits) for scene in scenes), tuple(unknown))


def _placed(scene: Scene, splits: Mapping[str, Split]) -> Scene:
    if scene.left_out:
        return scene
    split = splits.get(scene.key)
    return replace(scene, split=split, left_out="" if split else NOT_LISTED)


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


@dataclass(frozen=True, slots=True)
class Oddity:
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


def summarise(manifest: Path, recipe: Recipe, splitting: Splitting, done: Mapping[str, Facts]) -> Summary:
    """Add up the facts of all scenes that were used.

    Args:
        manifest: the file written.
        recipe: of the data set.
        splitting: every scene.
        done: facts by name of scene, of at least those that are used.
    """
    used = [scene for scene in splitting.scenes if not scene.left_out]
    facts = [done[scene.name] for scene in used if not done[scene.name].failed]
    left_out: dict[str, list[str]] = {}
    for scene in splitting.scenes:
        if scene.left_out:
            left_out.setdefault(scene.left_out, []).append(scene.name)
    prepared = {each.name for each in facts}
    return Summary(
        manifest=manifest,
        images=dict(Counter(scene.split for scene in used if scene.split and scene.name in prepared)),
        pixels={name: sum(each.pixels[index] for each in facts) for index, name in enumerate(recipe.classes)},
        ignored=sum(each.ignored for each in facts),
        odd=_oddities(facts),
        left_out=left_out,
        failed={scene.name: done[scene.name].failed for scene in used if done[scene.name].failed},
        unknown=splitting.unknown,
        drawn=splitting.drawn,
    )


def _oddities(facts: list[Facts]) -> dict[str, Oddity]:
    found: dict[str, list[Facts]] = {}
    for each in facts:
        for kind in each.odd:
            found.setdefault(kind, []).append(each)
    odd = {
        kind: Oddity(len(those), sum(each.odd[kind] for each in those), those[0].name) for kind, those in found.items()
    }
    return dict(sorted(odd.items(), key=lambda item: (item[1].pixels > 0, -item[1].pixels, item[0])))


def prepare(
    recipe: Recipe,
    source: Path,
    out: Path,
    *,
    split_lists: Mapping[Split, Path] | None = None,
    pyramid: bool = False,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
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
    report = progress or (lambda share: None)
    splitting = split_scenes(_checked(recipe, source), recipe, split_lists or {})
    used = [scene for scene in splitting.scenes if not scene.left_out]
    if not used:
        raise DatasetError(f"no image in {source} can be used: {splitting.scenes[0].left_out}")
    record = Record(out, _settings(recipe, source, pyramid), overwrite=overwrite)
    todo = [scene for scene in used if scene.name not in record.done]
    for count, facts in enumerate(_each(Writer(recipe, out, pyramid), todo, jobs), start=len(used) - len(todo) + 1):
        record.add(facts)
        report(count / len(used))
    manifest = out / MANIFEST
    _write_manifest(manifest, used, record.done, source)
    report(1.0)
    return summarise(manifest, recipe, splitting, record.done)


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


def _settings(recipe: Recipe, source: Path, pyramid: bool) -> dict[str, Any]:
    options: dict[str, Any] = asdict(recipe) if is_dataclass(recipe) and not isinstance(recipe, type) else {}
    return {"data_set": recipe.name, "source": str(source.resolve()), "pyramid": pyramid, **options}


def _each(work: Writer, scenes: list[Scene], jobs: int) -> Iterator[Facts]:
    if jobs == 1 or len(scenes) < 2:
        yield from map(work, scenes)
        return
    # Not forked: torch and GDAL have threads by now, and a fork of them may hang.
    pool = ProcessPoolExecutor(
        min(jobs, len(scenes)),
        mp_context=get_context("spawn"),
        initializer=follow_leader,
        initargs=(os.getpid(),),
    )
    try:
        for future in as_completed([pool.submit(work, scene) for scene in scenes]):
            yield future.result()
    except BrokenProcessPool:
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
