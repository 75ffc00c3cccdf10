"""What the bytes of a file say beside GDAL: which of its drivers may open it, whether it is whole, which way it is up.

GDAL has more than a hundred. Some follow what a file says to other files, whatever they hold, or to servers: a picture
from a stranger must not be opened by one of them because of what is in it.
"""

import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray

from foveate.data.readers.base import Address, first_bytes
from foveate.errors import ImageReadError, UnsupportedImageError, reason_of

VARIABLE = "FOVEATE_GDAL_DRIVERS"
VRT_VARIABLE = "FOVEATE_VRT_SOURCES"
# Each knows its files by their first bytes, and reads nothing else.
_BY_BYTES = ("GTiff", "PNG", "JPEG", "JP2OpenJPEG", "JP2KAK", "JPEGXL", "WEBP", "BMP", "GIF", "BIGGIF", "PNM")
# Some of these are without a mark of their own, so that the name must say it. Left out are those that refer to files of
# any name (PDS4, ISIS3, ERS, PCIDSK, HDF5, netCDF, MRF, tile indexes) or to servers (WMS, WMTS, WCS, MRF).
_BY_NAME = {
    ".vrt": ("VRT",), ".img": ("HFA", "ENVI", "EHdr"), ".dat": ("ENVI",), ".raw": ("ENVI", "EHdr"),
    ".bil": ("ENVI", "EHdr"), ".bip": ("ENVI", "EHdr"), ".bsq": ("ENVI", "EHdr"), ".ntf": ("NITF",),
    ".nitf": ("NITF",), ".nsf": ("NITF",), ".hgt": ("SRTMHGT",), ".asc": ("AAIGrid",), ".dem": ("USGSDEM",),
    ".dt0": ("DTED",), ".dt1": ("DTED",), ".dt2": ("DTED",), ".bt": ("BT",), ".ter": ("Terragen",),
    ".grb": ("GRIB",), ".grib": ("GRIB",), ".grb2": ("GRIB",), ".grib2": ("GRIB",), ".rgb": ("SGI",),
}  # fmt: skip
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_MAGIC = (*TIFF, PNG, JPEG, b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"BM", b"GIF8", b"RIFF")
MOST_BLOCK_BYTES = 512 << 20
_MOST_BYTES = 64 << 20  # of a text that is read whole
_SIDECARS = (".ovr", ".msk", ".msk.ovr", ".ovr.msk")
_FILES = {"sourcefilename", "sourcedataset"}
# Other ways to name files, raw bytes among them, and programs in Python.
_REFUSED = {
    "pixelfunctioncode", "sourcevrt", "overview_file", "group", "arraysource", "geoloctransformer", "rpctransformer",
    "cutline", "cutlineds", "dempath", "tilebandaccess", "x_dataset", "rpc_dem",
}  # fmt: skip
_REFUSED_CLASSES = {"vrtrawrasterband", "vrtprocesseddataset"}
_log = logging.getLogger(__name__)
_told: set[tuple[Path, int]] = set()
# Where the pixels of a TIFF lie and how many bytes they have: strips and tiles.
_PLACES = {273: 279, 324: 325}
_FURTHER, _ORIENTATION = 330, 274  # tags of directories within one, and of which side is up
_TAGS = (*_PLACES, *_PLACES.values(), _FURTHER, _ORIENTATION)
_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MOST_DIRECTORIES = 1000
_MOST_PARTS = 1 << 17  # of a file, before it is taken for damaged
_SCAN = 0xDA
Entries: TypeAlias = dict[int, NDArray[np.uint64]]  # of a directory of a TIFF, by their tags


def drivers_for(location: Address) -> list[str]:
    """Names of the drivers that may open a file; FOVEATE_GDAL_DRIVERS names more, separated by commas.

    What lies beside a file, and what a VRT is made of, is looked at too.

    Raises:
        UnsupportedImageError: when those would lead to other files than pictures below the file's folder.
    """
    more = tuple(name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip())
    suffix = location.path.suffix.lower()
    by_name = _BY_NAME.get(suffix, ()) if location.is_local else ()
    if suffix == ".vrt" and not location.is_local and "VRT" not in more:
        raise UnsupportedImageError(
            f"{location}: a VRT is opened only from the local disk, because its sources must lie below its folder; "
            "download it"
        )
    if "VRT" in by_name:
        _check_vrt(location.path, location.path.resolve().parent, set())
    if location.is_local:
        _check_beside(location.path)
    return [*_BY_BYTES, *by_name, *more]


def check_opened(dataset: rasterio.io.DatasetReader, location: Address) -> None:
    """Tell where an open file is shorter than it says; refuse one that cannot be read safely.

    Of a TIFF that is short it is logged, once a process: reading what is missing is an error, the rest can be used.
    Bytes without a mark of their own are refused, as what is missing would be read as zeros.

    Raises:
        UnsupportedImageError: when it holds several images, names another file for its coarse levels, or its strips or
            tiles are too large to be decoded, which is done whole.
        ImageReadError: when what is missing would be read as zeros.
    """
    if not dataset.count:
        several = ", ".join(dataset.subdatasets[:9])
        raise UnsupportedImageError(f"{dataset.name} holds several images; gdal_translate copies one: {several}")
    other = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if other:
        raise UnsupportedImageError(f"{dataset.name} takes its overviews from {other!r}, which Foveate does not follow")
    _check_blocks(dataset)
    if location.is_local and location.path.is_file():
        _check_length(dataset, location.path)


def _check_beside(path: Path) -> None:
    """GDAL opens these by any driver."""
    for suffix in _SIDECARS:
        beside = path.with_name(path.name + suffix)
        if beside.is_file() and first_bytes(beside)[:4] not in TIFF:
            raise UnsupportedImageError(
                f"{beside} is not a TIFF, but overviews and masks of {path.name} must be; remove it"
            )
    about = path.with_name(f"{path.name}.aux.xml")
    if about.is_file() and b"overview_file" in _text(about).lower():
        raise UnsupportedImageError(f"{about} refers to another file for the overviews of {path.name}; remove it")


def _check_vrt(path: Path, folder: Path, seen: set[Path]) -> None:
    """Refuse a VRT that reads anything but pictures below a folder; so are those it is made of."""
    seen.add(path.resolve())
    for node in _nodes(path):
        _check_words(path, node)
        if node.tag.lower() in _FILES:
            source = _source(node, path, folder)
            if source is not None and source.suffix.lower() == ".vrt" and source not in seen:
                _check_vrt(source, folder, seen)


def _check_words(path: Path, node: ElementTree.Element) -> None:
    """GDAL ignores the case of all names, and reads an attribute as it reads an element."""
    names = {name.lower() for name in node.attrib}
    values = {value.strip().lower() for value in node.attrib.values()}
    wrong = (names | values | {node.tag.lower()}) & _REFUSED or values & _REFUSED_CLASSES or names & _FILES
    if wrong:
        raise UnsupportedImageError(f"{path} uses {', '.join(sorted(wrong))}, which is not allowed in a VRT")
    language = node.text if node.tag.lower() == "pixelfunctionlanguage" else node.get("PixelFunctionLanguage")
    if "pixelfunctionlanguage" in names or (language or "c").strip().lower() != "c":
        raise UnsupportedImageError(f"{path} holds a program in {language}, which Foveate never runs")


def _nodes(path: Path) -> Iterator[ElementTree.Element]:
    text = _text(path)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise UnsupportedImageError(f"{path} declares entities, which a VRT does not need")
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True, insert_pis=True))
    try:
        root = ElementTree.fromstring(text, parser)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise UnsupportedImageError(f"{path} is not a VRT: {error}") from None
    if root.tag != "VRTDataset":
        raise UnsupportedImageError(f"{path} is not a VRT: it begins with <{root.tag}>")
    return (node for node in root.iter() if isinstance(node.tag, str))


def _source(node: ElementTree.Element, vrt: Path, folder: Path) -> Path | None:
    """The file that an element of a VRT names; None for what the user allowed and is no file."""
    text, relative = node.text or "", node.get("relativeToVRT", "0")
    if len(node) or relative not in ("0", "1") or not node.attrib.keys() <= {"relativeToVRT", "shared"}:
        raise UnsupportedImageError(f"{vrt} refers to a source in an unknown way: {node.tag} {node.attrib}")
    allowed = [one for one in os.environ.get(VRT_VARIABLE, "").split(";") if one]
    place = (vrt.resolve().parent / text if relative == "1" else Path(text)).resolve()
    if text.startswith("/vsi") and any(text.startswith(one) for one in allowed):
        return None
    if text.startswith("/vsi") or not any(place.is_relative_to(one) for one in (folder, *map(Path, allowed))):
        raise UnsupportedImageError(
            f"{vrt} reads {text!r}, which is not below its folder {folder}. To allow this, set the environment "
            f"variable {VRT_VARIABLE} to the folder of its sources (separate several by semicolons)"
        )
    if not place.is_file():
        raise UnsupportedImageError(f"{vrt} reads {text!r}, which is not a file")
    if place.suffix.lower() not in _BY_NAME and not first_bytes(place).startswith(_MAGIC):
        raise UnsupportedImageError(f"{vrt} reads {text!r}, which is not a picture of a known format")
    return place


def _text(path: Path) -> bytes:
    if path.stat().st_size > _MOST_BYTES:
        raise UnsupportedImageError(
            f"{path} has {path.stat().st_size} bytes; such a file may have at most {_MOST_BYTES}"
        )
    return path.read_bytes()


def _check_blocks(dataset: Any) -> None:
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        together = dataset.count if dataset.interleaving == rasterio.enums.Interleaving.pixel else 1
        size = height * width * np.dtype(dtype).itemsize * together
        if size > MOST_BLOCK_BYTES:
            raise UnsupportedImageError(
                f"{dataset.name} is stored in blocks of {height} x {width} pixels, {size / 2**20:.0f} MiB each, "
                f"which must be read whole; at most {MOST_BLOCK_BYTES >> 20} MiB are allowed. Store it in tiles, for "
                "example with gdal_translate -co TILED=YES"
            )


def _check_length(dataset: Any, path: Path) -> None:
    size = path.stat().st_size
    if dataset.driver in ("ENVI", "EHdr") and "NBITS" not in dataset.tags(1, ns="IMAGE_STRUCTURE"):
        needed = dataset.height * dataset.width * sum(np.dtype(name).itemsize for name in dataset.dtypes)
        if size < needed:
            raise ImageReadError(
                f"{path} has {size} bytes, but its header says {needed}: the file is truncated; copy it again"
            )
    elif dataset.driver == "GTiff" and (path, size) not in _told:
        problem = _tiff_problem(path, size)
        if problem:
            _told.add((path, size))
            _log.warning("%s is truncated: %s. The missing part cannot be read; copy the file again", path, problem)


def _tiff_problem(path: Path, size: int) -> str:
    """What the directories of a TIFF name that the file does not have; empty where nothing is missing."""
    last = 0
    try:
        with path.open("rb") as file:
            for entries in tiff_directories(file):
                for place, count in _PLACES.items():
                    if place in entries and count in entries and entries[place].size == entries[count].size > 0:
                        last = max(last, int((entries[place] + entries[count]).max()))
    except (struct.error, ValueError, KeyError, OSError, MemoryError) as error:
        return f"one of its directories cannot be read ({reason_of(error)})"
    return f"it has {size} bytes, but its directories refer to pixels up to byte {last}" if last > size else ""


def tiff_directories(file: IO[bytes], start: int = 0) -> Iterator[Entries]:
    """The entries that are used here of every directory of a TIFF that begins somewhere in a file.

    Raises:
        KeyError, ValueError, struct.error: when it is damaged.
    """
    file.seek(start)
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    big = _number(file, order, 2) == 43
    width = 8 if big else 4
    types = {"tag": "u2", "kind": "u2", "count": f"u{width}", "value": f"V{width}"}
    fields = np.dtype([(name, order + kind) for name, kind in types.items()])
    file.seek(start + width)
    waiting, seen = [_number(file, order, width)], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        place = waiting.pop()
        if place == 0 or place in seen:
            continue
        seen.add(place)
        file.seek(start + place)
        count = _number(file, order, 8 if big else 2)
        rows = np.frombuffer(_whole(file, count * fields.itemsize), fields)
        waiting.append(_number(file, order, width))
        used = (row for row in rows if row["tag"] in _TAGS and row["kind"] in _TYPES)
        entries = {int(row["tag"]): _values(file, order, start, row) for row in used}
        waiting.extend(entries.get(_FURTHER, np.empty(0, np.uint64)).tolist())
        yield entries


def _values(file: IO[bytes], order: str, start: int, row: Any) -> NDArray[np.uint64]:
    """Of an entry; where they are more than it has room for, it says where they lie."""
    dtype = np.dtype(order + _TYPES[int(row["kind"])])
    value, length = row["value"].tobytes(), int(row["count"]) * dtype.itemsize
    if length > len(value):
        file.seek(start + int(np.frombuffer(value, f"{order}u{len(value)}")[0]))
        value = _whole(file, length)
    return np.frombuffer(value, dtype, int(row["count"])).astype(np.uint64)


def _whole(file: IO[bytes], length: int) -> bytes:
    data = file.read(length) if length <= 1 << 30 else b""
    if len(data) < length:
        raise ValueError("a part of it lies beyond the end of the file")
    return data


def _number(file: IO[bytes], order: str, length: int) -> int:
    return int(np.frombuffer(_whole(file, length), f"{order}u{length}")[0])


def stored_orientation(location: Address) -> int:
    """What a TIFF, a PNG or a JPEG says; 1, as it is stored, of all others and where that is damaged."""
    try:
        with location.path.open("rb") as file:
            found = _in_file(file)
    except (OSError, struct.error, KeyError, ValueError):
        return 1
    return found if found in range(2, 9) else 1


def _in_file(file: IO[bytes]) -> int:
    head = file.read(8)
    places = _png_exif(file) if head == PNG else _jpeg_exif(file) if head.startswith(JPEG) else iter(())
    place = 0 if head[:4] in TIFF else next(places, None)  # EXIF is stored as a TIFF
    if place is None:
        return 1
    found = next(tiff_directories(file, place), {}).get(_ORIENTATION)
    return int(found[0]) if found is not None and found.size else 1


def _png_exif(file: IO[bytes]) -> Iterator[int]:
    """Where the chunks with EXIF begin."""
    place = len(PNG)
    for _ in range(_MOST_PARTS):
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"eXIf":
            yield place + 8
        if kind == b"IEND":
            return
        place += length + 12


def _jpeg_exif(file: IO[bytes]) -> Iterator[int]:
    """Where the segments with EXIF begin, before the pixels."""
    place = 2
    for _ in range(_MOST_PARTS):
        file.seek(place)
        mark, marker, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF or marker == _SCAN:
            return
        if marker == 0xE1 and file.read(6) == b"Exif\0\0":
            yield place + 10
        place += length + 2
