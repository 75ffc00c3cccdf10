"""`init`: from a folder of images and labels to a configuration that says why each choice was made."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from foveate.data.survey import Survey, survey
from foveate.data.survey_labels import ImageFacts
from foveate.files import refuse_existing, write_text
from foveate.runs._init_draft import Draft
from foveate.runs.config import RunConfig


class Initialised(NamedTuple):
    """What `init` found and wrote.

    Attributes:
        path: the configuration.
        config: the same, parsed.
        found: facts of the data set, each with a name.
        problems: what was not understood, left out or guessed.
        files: what was written.
    """

    path: Path
    config: RunConfig
    found: dict[str, str]
    problems: tuple[str, ...]
    files: tuple[Path, ...]


def init(folder: Path, out: Path | None = None, *, overwrite: bool = False) -> Initialised:
    """Look at a folder of images and labels, and write a configuration to train on it.

    Args:
        folder: holds images/ and masks/ (or labels/, annotations/): masks of class ids or of colours, or polygons,
            under the names of the images. Of overlapping classes masks with a band for each, or a folder for each.
        out: the configuration; NAME.yaml in the current folder when None.
        overwrite: replace an earlier one.

    Raises:
        DatasetError: when the folder holds no images with labels, or they do not make a data set.
        OutputExistsError: when a file is there and may not be replaced.
    """
    name = name_of(folder)
    path = out or Path(f"{name}.yaml")
    refuse_existing(path, overwrite)
    seen = survey(folder)
    written = _write_manifest(seen, path, overwrite)
    draft = Draft(seen, name, written[0] if written else None)
    text = draft.text()
    config = RunConfig.parse(_parsed(text), source=str(path))
    write_text(path, text, overwrite=overwrite)
    return Initialised(path, config, draft.found(), (*seen.problems, *draft.guesses), (path, *written))


def name_of(folder: Path) -> str:
    """What a run on a folder is called."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-") or "run"


def config_for(folder: Path) -> Path:
    """The configuration of a folder in the current one, written by `init` where it is not there yet."""
    path = Path(f"{name_of(folder)}.yaml")
    return path if path.exists() else init(folder, path).path


def _parsed(text: str) -> Any:
    import yaml  # noqa: PLC0415 - only here

    return yaml.safe_load(text)


def _write_manifest(seen: Survey, path: Path, overwrite: bool) -> tuple[Path, ...]:
    """A table of files, where images/ and masks/ do not say it all: of one scene, and of other names."""
    one = len(seen.images) == 1
    plain = {image.path.parent.name for image in seen.images} == {"images"} and all(
        image.labels is not None and "masks" in (image.labels.parent.name, image.labels.parent.parent.name)
        for image in seen.images
    )
    if plain and not one and not any("left out" in problem for problem in seen.problems):
        return ()
    regions = _write_regions(seen.images[0], path, overwrite) if one else {}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "mask", "split", "roi"])
    for image in seen.images:
        assert image.labels is not None
        for split, roi in regions.items() or [("", "")]:
            table.writerow([image.path.resolve(), image.labels.resolve(), split, roi and Path(roi).resolve()])
    manifest = path.with_suffix(".csv")
    write_text(manifest, text.getvalue(), overwrite=overwrite)
    return (manifest, *regions.values())


def _write_regions(image: ImageFacts, path: Path, overwrite: bool) -> dict[str, Path]:
    """Three quarters of a scene along its longer side to train on, the last quarter to validate."""
    height, width = image.size.height, image.size.width
    cut = (0.75 * width, height) if width >= height else (width, 0.75 * height)
    low = (cut[0], 0.0) if width >= height else (0.0, cut[1])
    corners = {"train": (0.0, 0.0, *cut), "val": (*low, float(width), float(height))}
    files = {}
    for split, (left, top, right, bottom) in corners.items():
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        files[split] = path.with_suffix(f".{split}.geojson")
        write_text(files[split], json.dumps({"type": "Polygon", "coordinates": [ring]}) + "\n", overwrite=overwrite)
    return files
