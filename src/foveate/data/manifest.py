"""Which files make the data set: images paired with labels, each in one split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foveate.data.config import DataConfig
from foveate.data.labels.raster import CLASS, class_files
from foveate.data.labels.shapes import VECTORS
from foveate.data.readers.bands import band_files, is_pattern, pattern_of
from foveate.data.readers.base import Address
from foveate.data.readers.openslide_reader import dicom_files
from foveate.data.rows import Row, rows_of
from foveate.data.sections import SPLITS, Split, assign_splits, some
from foveate.errors import DatasetError

# What programs and systems leave beside images, and what people keep there; the last suffix, in small letters.
_BESIDE = """
tfw tifw tiffw jgw jpgw jpegw pgw pngw j2w jp2w wld ovr msk aux rrd xml prj qpj cpg dbf shx sbn sbx qix qmd qml sld hdr
rpb imd til eph xmp thm icc idx db ini lnk lock tmp part crdownload bak log txt md rst pdf html csv tsv xls xlsx yaml
yml toml md5 sha1 sha256
"""


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


def load_samples(config: DataConfig, *, need_masks: bool = True) -> list[Sample]:
    """All images of the data set, sorted by name, with their splits.

    Args:
        config: says where they are.
        need_masks: refuse images without a mask.

    Raises:
        DatasetError: when a folder, file or mask is missing, an image occurs twice, or a split list names no image.
    """
    with _of_manifest(config):
        return _samples(config, need_masks)


@contextmanager
def _of_manifest(config: DataConfig) -> Iterator[None]:
    """Name the manifest in errors about what it names."""
    try:
        yield
    except DatasetError as error:
        lists = [config.manifest] if isinstance(config.manifest, Path) else (config.manifest or {}).values()
        if not lists or any(path.name in str(error) for path in lists):
            raise
        raise DatasetError(f"{error}; see {', '.join(str(config.root / path) for path in lists)}") from None


def _samples(config: DataConfig, need_masks: bool) -> list[Sample]:
    config.check_there()
    rows = _named(_rows(config))
    if need_masks:
        _check_masks(rows, config)
    _check_files(rows, config)
    drawn = assign_splits([row.name for row in rows if not row.splits], config.split)
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
    images = {Address.of(path).name.removesuffix(".ome") for path in _images_in(folder / "images", config.band_files)}
    return [path.name for path in _label_files(folder) if Address.of(path).name.removesuffix(".ome") not in images]


def _rows(config: DataConfig) -> list[Row]:
    if config.folder is not None:
        return _from_folder(config.root / config.folder, config)
    if isinstance(config.manifest, Path):
        return rows_of(config.root / config.manifest, config.root)
    if config.manifest:
        return _from_lists(config.manifest, config.root)
    raise DatasetError("data.folder and data.manifest are both missing; set one")


def _from_folder(folder: Path, config: DataConfig) -> list[Row]:
    images = _images_in(folder / "images", config.band_files)
    if not images:
        raise DatasetError(f"no image in {folder / 'images'}")
    masks = _by_class(folder / "masks", config.class_names if config.overlapping else ()) or _by_name(
        "masks", _label_files(folder)
    )
    return [Row(path, _mask_of(name, masks), name) for name, path in _by_name("images", images).items()]


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


def _mask_of(image: str, masks: Mapping[str, Path]) -> Path | None:
    """The mask called as its image, whose name may or may not have the ending .ome."""
    plain = image.removesuffix(".ome")
    return next((masks[name] for name in (image, plain, f"{plain}.ome") if name in masks), None)


def _label_files(folder: Path) -> list[Path]:
    return data_files(folder / "masks", polygons=True) if (folder / "masks").is_dir() else []


def data_files(folder: Path, *, polygons: bool = False) -> list[Path]:
    """The images in a folder, sorted; of labels also the polygons. What lies beside images is left out."""
    return sorted(path for path in folder.iterdir() if _may_be_read(path, polygons))


def _may_be_read(path: Path, polygons: bool) -> bool:
    """Systems leave hidden files, and slides have folders of their own, of which those in DICOM are the slides."""
    suffix = path.suffix.lower()
    beside = suffix[1:] in _BESIDE.split() or (suffix in VECTORS and not polygons)
    if beside or path.name.startswith((".", "~")) or path.name.endswith("~"):
        return False
    return path.is_file() or suffix == ".zarr" or bool(dicom_files(path))


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


def _from_lists(lists: Mapping[Split, Path], root: Path) -> list[Row]:
    """Rows of one list a split. One list for two splits, as in the original's demonstration, is so on purpose."""
    splits: dict[Path, list[Split]] = defaultdict(list)
    for split, path in lists.items():
        splits[root / path].append(split)
    return [row for path, those in splits.items() for row in rows_of(path, root, tuple(those))]


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
        named = [_deeper(row, depth) if len(same) > 1 else row for same in groups for row in same]
    twice = next(same for same in _groups(rows, lambda row: row.name) if len(same) > 1)
    raise DatasetError(
        f"images must have different file stems, but two have {twice[0].name} ({twice[0].image} and {twice[1].image})"
    )


def _groups(rows: Iterable[Row], key: Callable[[Row], str]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())


def _deeper(row: Row, depth: int) -> Row:
    """The row with the name of one more of its folders before its own."""
    folders = [part for part in row.image.parent.parts if part.strip("/.:\\")]
    return row._replace(name=f"{folders[-depth]}-{row.name}") if depth <= len(folders) else row


def _check_masks(rows: list[Row], config: DataConfig) -> None:
    missing = [row.name for row in rows if row.mask is None]
    if missing:
        alone = masks_without_image(config)
        hint = f"; masks without an image of the same name: {some(alone)}" if alone else ""
        raise DatasetError(f"{len(missing)} of {len(rows)} images have no mask: {some(missing)}{hint}")


def _is_there(path: Path, config: DataConfig) -> bool:
    if is_pattern(path):
        return bool(band_files(path, config.band_files))
    return path.exists() or (CLASS in str(path) and any(class_files(path, config.class_names)))


def _check_files(rows: list[Row], config: DataConfig) -> None:
    named = [path for row in rows for path in (row.image, row.mask, row.roi) if path is not None]
    missing = [str(path) for path in named if Address.of(path).is_local and not _is_there(path, config)]
    if missing:
        raise DatasetError(f"{len(missing)} files do not exist: {some(missing)}")
