"""Outlines in JSON: GeoJSON (QuPath's too), COCO with its run lengths, and LabelMe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.features import shapes as outlines_of
from shapely.errors import ShapelyError
from shapely.geometry import shape

from foveate.errors import DatasetError
from foveate.texts import read_json

_MOST_BYTES = 512 << 20  # of a text; it takes some twenty times as much memory


def read_json_tree(path: Path) -> Any:
    if not path.is_file():
        raise DatasetError(f"no labels at {path}")
    return read_json(path, DatasetError, "files with this suffix hold labels as GeoJSON, COCO or LabelMe", _MOST_BYTES)


def from_json(tree: Any, path: Path, image: str) -> tuple[list[Any], list[dict[str, Any]]]:
    try:
        if isinstance(tree, dict) and "annotations" in tree:
            found = list(_from_coco(tree, path, image))
        elif isinstance(tree, dict) and "shapes" in tree:
            found = [(_polygon([one["points"]]), {"label": one.get("label")}) for one in tree["shapes"]]
        else:
            found = list(_features(tree, path))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} is not a GeoJSON, COCO or LabelMe file: {error!r}") from None
    return [geometry for geometry, _ in found], [properties for _, properties in found]


def _features(tree: Any, path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    if isinstance(tree, list):  # QuPath writes a bare list of features too
        tree = {"type": "FeatureCollection", "features": tree}
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "FeatureCollection":
        for feature in tree["features"]:
            yield from _features(feature, path)
    elif kind == "Feature":
        yield _geometry(tree.get("geometry")), dict(tree.get("properties") or {})
    elif kind in ("Polygon", "MultiPolygon"):
        yield _geometry(tree), {}
    else:
        raise DatasetError(f"{path} holds {kind or type(tree).__name__}; labels must be polygon features with a class")


def _geometry(tree: Any) -> Any:
    """A shapely geometry; None for one that cannot be made, as of a ring with too few corners."""
    try:
        return None if tree is None else shape(tree)
    except (ShapelyError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None


def _polygon(rings: Sequence[Any]) -> Any:
    return _geometry({"type": "Polygon", "coordinates": rings})


def _from_coco(tree: Any, path: Path, image: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    names = {one["id"]: one["name"] for one in tree["categories"]}
    images = {one["id"]: Path(str(one["file_name"]).replace("\\", "/")) for one in tree["images"]}
    mine = {key for key, file in images.items() if file.name == image or file.stem == Path(image).stem}
    if not mine and len(images) > 1:
        some = ", ".join(map(str, list(images.values())[:5]))
        raise DatasetError(f"{path} has no labels for the image {image}; it has labels for {some}")
    for one in tree["annotations"]:
        if one["image_id"] in (mine or images):
            label = {"category": names.get(one["category_id"], one["category_id"])}
            for geometry in _coco_geometries(one["segmentation"]):
                yield geometry, label


def _coco_geometries(segmentation: Any) -> Iterator[Any]:
    if isinstance(segmentation, Mapping):
        yield from _run_lengths(segmentation)
        return
    for flat in segmentation:
        yield _polygon([np.reshape(flat, (-1, 2)).tolist()])


def _run_lengths(segmentation: Mapping[str, Any]) -> Iterator[Any]:
    """Outlines of a mask in runs of zeros and ones, column by column."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    values = np.repeat(np.arange(len(lengths), dtype=np.uint8) % 2, lengths)
    mask = np.ascontiguousarray(values.reshape(width, height).T)
    for outline, _ in outlines_of(mask, mask=mask.astype(bool)):
        yield _geometry(outline)


def _unpacked(text: str) -> list[int]:
    """Run lengths from COCO's compressed text.

    Source: rleFrString of the COCO API (maskApi.c): five bits a character, least first, the sixth says that more
    follow; from the third number on each is a difference to the one before the last.
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 31) << shift
            more, place, shift = bool(bits & 32), place + 1, shift + 5
            if not more and bits & 16:
                value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
