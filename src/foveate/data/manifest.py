"""Which files make the data set: images paired with labels, each in one split."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foveate.data.config import DataConfig
from foveate.data.labels.raster import CLASS, class_files
from foveate.data.labels.shapes import VECTORS
from foveate.data.readers.base import Address, band_files, is_pattern, pattern_of
from foveate.data.readers.openslide_reader import dicom_files
from foveate.data.sections import SPLITS, Split, assign_splits, some
from foveate.errors import ConfigError, DatasetError, reason_of
from foveate.texts import metres, read_text

# What programs and systems leave beside images, and what people keep there; the last suffix, in small letters.
_BESIDE = """
tfw tifw tiffw jgw jpgw jpegw pgw pngw j2w jp2w wld ovr msk aux rrd xml prj qpj cpg dbf shx sbn sbx qix qmd qml sld hdr
rpb imd til eph xmp thm icc idx db ini lnk lock tmp part crdownload bak log txt md rst pdf html csv tsv xls xlsx yaml
yml toml md5 sha1 sha256
"""
_LONGEST, _MOST_BYTES = 4000, 256 << 20  # letters of a path; bytes of a manifest
_REMEDY = "a manifest is a CSV table, or one JSON object per line, with image and mask"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, or one region of it.

    Attributes:
        image: its file.
        mask: the file of its labels; None when it has none, which only prediction accepts.
        name: of the image file without its suffix, unique in its split; of the regions of one image it ends in that of
            the region, and of images of one name it begins with those of their folders.
        split: "train", "val" or "test".
        pixel_size: of the image in metres, where the manifest gives it.
        roi: GeoJSON file of the region that is labelled, where the manifest gives one.
    """

    image: Path
    mask: Path | None
    name: str
    split: Split
    pixel_size: float | None = None
    roi: Path | None = None


class Row(NamedTuple):
    """A sample whose `splits` are none when they are not known yet, several when it is in several on purpose."""

    image: Path
    mask: Path | None
    name: str
    splits: tuple[Split, ...] = ()
    pixel_size: float | None = None
    roi: Path | None = None


def load_samples(config: DataConfig, *, need_masks: bool = True) -> list[Sample]:
    """All images of the data set, sorted by name, with their splits.

    Args:
        config: says where they are.
        need_masks: refuse images without a mask.

    Raises:
        DatasetError: when a folder, file or mask is missing, an image occurs twice, or a split list names no image.
    """
    config.check_there()
    lists = [config.manifest] if isinstance(config.manifest, Path) else (config.manifest or {}).values()
    try:
        rows = _named(_rows(config))
        _check_files(rows, config, need_masks)
        drawn = assign_splits([row.name for row in rows if not row.splits], config.split)
    except DatasetError as error:
        if not lists or any(path.name in str(error) for path in lists):
            raise
        raise DatasetError(f"{error}; see {', '.join(str(config.root / path) for path in lists)}") from None
    samples = [
        Sample(row.image, row.mask, row.name, split, row.pixel_size, row.roi)
        for row in rows
        for split in row.splits or (drawn[row.name],)
    ]
    return sorted(samples, key=lambda sample: (sample.name, SPLITS.index(sample.split)))


def masks_without_image(config: DataConfig) -> list[str]:
    """The names of masks in the folder that no image is called by."""
    if config.folder is None:
        return []
    folder = config.root / config.folder
    images, masks = _images_in(folder / "images", config.band_files), _label_files(folder)
    named = {Address.of(path).name.removesuffix(".ome") for path in images}
    return [path.name for path in masks if Address.of(path).name.removesuffix(".ome") not in named]


def _rows(config: DataConfig) -> list[Row]:
    if config.folder is not None:
        return _from_folder(config.root / config.folder, config)
    if isinstance(config.manifest, Path):
        return _listed(config.root / config.manifest, config.root)
    # One list for two splits, as in the original's demonstration, is so on purpose.
    splits: dict[Path, list[Split]] = defaultdict(list)
    for split, path in (config.manifest or {}).items():
        splits[config.root / path].append(split)
    return [row for path, those in splits.items() for row in _listed(path, config.root, tuple(those))]


def _from_folder(folder: Path, config: DataConfig) -> list[Row]:
    images = _images_in(folder / "images", config.band_files)
    if not images:
        raise DatasetError(f"no image in {folder / 'images'}")
    names = config.class_names if config.overlapping else ()
    masks = _by_class(folder / "masks", names) or _by_name("masks", _label_files(folder))
    found = []
    for name, path in _by_name("images", images).items():  # an image and its mask may or may not have the ending .ome
        plain = name.removesuffix(".ome")
        mask = next((masks[one] for one in (name, plain, f"{plain}.ome") if one in masks), None)
        found.append(Row(path, mask, name))
    return found


def _images_in(folder: Path, bands: Sequence[str] | None) -> list[Path]:
    """The images in a folder; of bands in files of their own one path with `{band}` for each image."""
    files = data_files(folder)
    if bands is None or not files:
        return files
    found = list(dict.fromkeys(path for path in (pattern_of(file, bands) for file in files) if is_pattern(path)))
    if not found:
        raise DatasetError(f"no file in {folder} has one of data.band_files ({', '.join(bands)}) in its name")
    return found


def _by_class(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Masks by their stems, from a folder for each overlapping class; none where there are no such folders."""
    there = [name for name in names if (folder / name).is_dir()]
    if not there:
        return {}
    if len(there) < len(names):
        missing = some([name for name in names if name not in there])
        raise DatasetError(f"{folder} has folders of classes ({some(there)}), but none of {missing}; make one for each")
    found: dict[str, Path] = {}
    for path in (path for name in names for path in data_files(folder / name)):
        pattern = folder / CLASS / path.name
        if found.setdefault(Address.of(path).name, pattern) != pattern:
            raise DatasetError(
                f"{path} and another mask of its image have different suffixes; give the masks of an image one name in "
                f"all folders of {folder}, or name them in a manifest: masks/{CLASS}/a.png"
            )
    return found


def _label_files(folder: Path) -> list[Path]:
    return data_files(folder / "masks", polygons=True) if (folder / "masks").is_dir() else []


def data_files(folder: Path, *, polygons: bool = False) -> list[Path]:
    """The images in a folder, sorted; of labels also the polygons. What lies beside images is left out."""
    beside = {*(f".{suffix}" for suffix in _BESIDE.split()), *(() if polygons else VECTORS)}
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() not in beside and not path.name.startswith((".", "~")) and not path.name.endswith("~")
        # Slides have folders of their own, of which those in DICOM are the slides.
        if path.is_file() or path.suffix.lower() == ".zarr" or dicom_files(path)
    )


def _by_name(kind: str, files: Iterable[Path]) -> dict[str, Path]:
    """Files of a folder by their stems."""
    found: dict[str, Path] = {}
    for path in files:
        other = found.setdefault(Address.of(path).name, path)
        if other != path:
            raise DatasetError(
                f"{kind} are paired by file stem, but two have the stem {Address.of(path).name} ({other} and {path}). "
                "Remove one, or pair images and masks in a manifest"
            )
    return found


def _named(rows: list[Row]) -> list[Row]:
    """Rows with names of their own: regions of one image by theirs, images of one name by their folders."""
    named = []
    for same in _groups(rows, lambda row: str(row.image)):
        regions = {row.roi.stem for row in same if row.roi is not None}
        if len(same) > 1 and len(regions) < len(same):
            where = ", ".join(sorted({split for row in same for split in row.splits})) or "no split"
            raise DatasetError(
                f"an image may occur once, or once for each of its regions (column roi), but {same[0].name} occurs "
                f"twice ({same[0].image}, in {where})"
            )
        named += [row._replace(name=f"{row.name}-{row.roi.stem}") if len(same) > 1 and row.roi else row for row in same]
    for depth in range(1, max(len(row.image.parts) for row in named)):
        groups = _groups(named, lambda row: row.name)
        if len(groups) == len(named):
            return named
        named = []
        for same in groups:
            for row in same:
                folders = [part for part in row.image.parent.parts if part.strip("/.:\\")]
                deeper = len(same) > 1 and depth <= len(folders)
                named.append(row._replace(name=f"{folders[-depth]}-{row.name}") if deeper else row)
    twice = next(same for same in _groups(rows, lambda row: row.name) if len(same) > 1)
    raise DatasetError(
        f"images must have different file stems, but two have {twice[0].name} ({twice[0].image} and {twice[1].image})"
    )


def _groups(rows: Iterable[Row], key: Callable[[Row], str]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())


def _check_files(rows: list[Row], config: DataConfig, need_masks: bool) -> None:
    bare = [row.name for row in rows if row.mask is None]
    if bare and need_masks:
        alone = masks_without_image(config)
        hint = f"; masks without an image of the same name: {some(alone)}" if alone else ""
        raise DatasetError(f"{len(bare)} of {len(rows)} images have no mask: {some(bare)}{hint}")

    def is_there(path: Path) -> bool:
        if is_pattern(path):
            return bool(band_files(path, config.band_files))
        return path.exists() or (CLASS in str(path) and any(class_files(path, config.class_names)))

    named = [path for row in rows for path in (row.image, row.mask, row.roi) if path is not None]
    missing = [str(path) for path in named if Address.of(path).is_local and not is_there(path)]
    if missing:
        raise DatasetError(f"{len(missing)} files do not exist: {some(missing)}")


def _listed(path: Path, root: Path, splits: tuple[Split, ...] = ()) -> list[Row]:
    """The rows of a list, with these splits where they give none."""
    text = read_text(path, DatasetError, _REMEDY, _MOST_BYTES)
    records = _csv(text, path) if path.suffix.lower() in (".csv", ".tsv", ".txt") else _json(text, path)
    if not records:
        raise DatasetError(f"the manifest {path} has no images")
    # The original's list of its demonstration lies in the folder that its paths begin with.
    bases = [path.parent, root, path.parent.parent]
    rows = [_row(record, bases, f"{path}, entry {number}") for number, record in enumerate(records, start=1)]
    # The original's lists name some images twice, which made them count twice; here an image is either in or not.
    return list(dict.fromkeys(row._replace(splits=row.splits or splits) for row in rows))


def _csv(text: str, path: Path) -> list[dict[str, Any]]:
    """Columns are divided by commas, or as spreadsheets of other countries write them by semicolons or tabs."""
    header = text.partition("\n")[0]
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
        table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
        records = list(table)
    except csv.Error as error:
        raise DatasetError(f"{path} is not a table ({error}); {_REMEDY}") from None
    long = next((number for number, record in enumerate(records, start=1) if None in record), None)
    if long is not None:
        raise DatasetError(f"{path}, entry {long} has more columns than the header; put names with commas into quotes")
    return [{key: (value or "").strip() for key, value in record.items()} for record in records]


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is neither CSV (by its suffix) nor JSON lines: {error}") from None
    if not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path}: every line must be a JSON object with 'image' and 'mask'")
    return list(records)


def _row(record: dict[str, Any], bases: list[Path], place: str) -> Row:
    """A row from our keys or from those of the original's `.odgt` files."""
    image, mask = _text(record, place, "image", "fpath_img"), _text(record, place, "mask", "fpath_segm")
    split, roi = _text(record, place, "split"), _text(record, place, "roi")
    if not image:
        raise DatasetError(f"{place}: no 'image'; the keys are image, mask and split (or fpath_img, fpath_segm)")
    if split and split not in SPLITS:
        raise DatasetError(f"{place}: split {split!r}; allowed are {', '.join(SPLITS)}")
    size = record.get("pixel_size")
    try:
        pixel_size = metres(str(size)) if size else None
    except ConfigError as error:
        raise DatasetError(f"{place}: pixel_size {error}") from None
    found, (labels, region) = _resolve(image, bases), (_resolve(text, bases) if text else None for text in (mask, roi))
    return Row(found, labels, Address.of(found).name, (split,) if split else (), pixel_size, region)


def _text(record: dict[str, Any], place: str, *keys: str) -> str:
    value = next((record[key] for key in keys if record.get(key)), "")
    if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST:
        raise DatasetError(f"{place}: {keys[0]} is {str(value)[:60]!r}, which is not a file name")
    return value


def _resolve(text: str, bases: list[Path]) -> Path:
    place = Address.of(text)
    if not place.is_local:
        return Path(text)  # `open_image` gives a URL its second slash back
    candidates = [base / spelled for spelled in (text, text.replace("\\", "/")) for base in bases]
    # Of files for each class or band, `masks/{class}/a.png`, the folder.
    before = [re.split(r"(\{class\}|\{band\})", str(path)) for path in candidates]
    places = [Path(f"{parts[0]}x").parent if len(parts) > 1 else Path(parts[0]) for parts in before]
    try:
        return next((path for path, place in zip(candidates, places, strict=True) if place.exists()), candidates[0])
    except (OSError, ValueError) as error:  # a part of it is too long, or what no path may hold
        raise DatasetError(f"{text[:60]!r} cannot be a file name: {reason_of(error)}") from None
