"""What a preparation found: images of each split, pixels of each class, and everything odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foveate.data.preparation.output import Facts
from foveate.data.preparation.scene import Recipe
from foveate.data.preparation.splits import Splitting
from foveate.data.splits import Split


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
