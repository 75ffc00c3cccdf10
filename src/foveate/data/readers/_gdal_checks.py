"""Before GDAL opens a file: which of its drivers may, and whether the file is as long as it says itself.

GDAL has more than a hundred. Some follow what a file says to other files, whatever they hold, or to servers: a picture
from a stranger must not be opened by one of them because of what is in it.
"""

import logging
import os
import struct
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.io import DatasetReader

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
_MAGIC = (*TIFF, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"BM", b"GIF8", b"RIFF")
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
_FURTHER = 330  # directories within one
_TAGS = frozenset((*_PLACES, *_PLACES.values(), _FURTHER))
_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MOST_DIRECTORIES = 1000


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
    return [name for name in (*_BY_BYTES, *by_name, *more) if name in _available()]


def check_overviews(dataset: DatasetReader) -> None:
    """Refuse an open file that names another one for its coarse levels.

    Raises:
        UnsupportedImageError: naming both.
    """
    other = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if other:
        raise UnsupportedImageError(
            f"{dataset.name} takes its overviews from {other!r}; Foveate does not follow such references"
        )


@lru_cache(maxsize=1)
def _available() -> frozenset[str]:
    with rasterio.Env() as env:
        return frozenset(env.drivers())


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


def check_length(dataset: Any, path: Path) -> None:
    """Tell where an open file is shorter than it says.

    Of a TIFF it is logged, once a process: reading what is missing is an error, the rest can be used. Bytes without a
    mark of their own are refused, as what is missing would be read as zeros.
    """
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
    try:
        with path.open("rb") as file:
            ends = [end for entries in tiff_directories(file, _TAGS) for end in _ends(entries)]
    except (struct.error, ValueError, KeyError, OSError, MemoryError) as error:
        return f"one of its directories cannot be read ({reason_of(error)})"
    last = max(ends, default=0)
    return f"it has {size} bytes, but its directories refer to pixels up to byte {last}" if last > size else ""


def _ends(entries: dict[int, np.ndarray[Any, Any]]) -> Iterator[int]:
    for place, count in _PLACES.items():
        if place in entries and count in entries and entries[place].size == entries[count].size > 0:
            yield int((entries[place] + entries[count]).max())


def tiff_directories(
    file: IO[bytes], tags: Container[int], start: int = 0
) -> Iterator[dict[int, np.ndarray[Any, Any]]]:
    """Some entries of every directory of a TIFF that begins somewhere in a file, as 64-bit numbers.

    Raises:
        KeyError, ValueError, struct.error: when it is damaged.
    """
    file.seek(start)
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    (version,) = struct.unpack(f"{order}H", file.read(2))
    big = version == 43
    file.seek(start + (8 if big else 4))
    waiting, seen = [_number(file, order, big)], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        place = waiting.pop()
        if place == 0 or place in seen:
            continue
        seen.add(place)
        file.seek(start + place)
        (count,) = struct.unpack(f"{order}{'Q' if big else 'H'}", file.read(8 if big else 2))
        raw = file.read(count * (20 if big else 12))
        if len(raw) < count * (20 if big else 12):
            raise ValueError("it lies beyond the end of the file")
        waiting.append(_number(file, order, big))
        entries = dict(_entries(file, raw, order, big, tags, start))
        waiting.extend(entries.get(_FURTHER, np.empty(0, np.uint64)).tolist())
        yield entries


def _entries(
    file: IO[bytes], raw: bytes, order: str, big: bool, tags: Container[int], begin: int
) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.uint64]]]]:
    step, inside = (20, 8) if big else (12, 4)
    for start in range(0, len(raw), step):
        tag, kind = struct.unpack_from(f"{order}HH", raw, start)
        if tag not in tags or kind not in _TYPES:
            continue
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", raw, start + 4)
        dtype = np.dtype(order + _TYPES[kind])
        value = raw[start + step - inside : start + step]
        if count * dtype.itemsize > inside:
            file.seek(begin + struct.unpack(f"{order}{'Q' if big else 'I'}", value)[0])
            value = _whole(file, count * dtype.itemsize)
        yield tag, np.frombuffer(value, dtype, count).astype(np.uint64)


def _whole(file: IO[bytes], length: int) -> bytes:
    data = file.read(length) if length <= 1 << 30 else b""
    if len(data) < length:
        raise ValueError("an offset list lies beyond the end of the file")
    return data


def _number(file: IO[bytes], order: str, big: bool) -> int:
    return int(struct.unpack(f"{order}{'Q' if big else 'I'}", file.read(8 if big else 4))[0])
