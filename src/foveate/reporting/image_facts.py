"""What there is to say about an image file."""

from __future__ import annotations

import math

from foveate.data.readers.base import ImageReader
from foveate.units import length

_NO_DATA = ("pixels that hold none are marked in the file", "pixels that are marked, or are not finite")


def image_facts(reader: ImageReader) -> dict[str, str]:
    """Size, bands, levels, georeference, pixel size, reader and reading cost, ready for a table."""
    levels = ", ".join(f"{size.width} x {size.height}" for size in reader.levels)
    return {
        "format": f"{reader.format}, read by {type(reader).__name__}",
        "width x height": f"{reader.size.width} x {reader.size.height} ({reader.size.megapixels:.1f} megapixels)",
        "bands": _bands(reader),
        **({"no data": _NO_DATA[int(reader.dtype.kind == "f")]} if reader.masked else {}),
        "levels": levels,
        "georeference": _georeference(reader),
        "pixel size": _pixel_size(reader),
        "reading": _reading_cost(reader),
        **({"note": "; ".join(reader.remarks)} if reader.remarks else {}),
    }


def _bands(reader: ImageReader) -> str:
    names = f": {', '.join(name or '-' for name in reader.band_names)}" if any(reader.band_names) else ""
    return f"{reader.bands} x {reader.dtype}" + (" and alpha" if reader.alpha else "") + names


def _georeference(reader: ImageReader) -> str:
    place = reader.georeference
    if place is None:
        return "none"
    a, b, x, d, e, y = place.transform
    name = place.crs.split('"')[1] if '"' in place.crs else "no coordinate system"
    return f"{name}; first corner ({x:.10g}, {y:.10g}), pixel {math.hypot(a, d):g} x {math.hypot(b, e):g}"


def _pixel_size(reader: ImageReader) -> str:
    known = reader.resolution
    if known is None:
        return "not known"
    # Square but for rounding, as nearly all are.
    square = abs(known.row - known.col) < 1e-4 * known.row
    return length(known.row) if square else f"{length(known.col)} wide, {length(known.row)} high"


def _reading_cost(reader: ImageReader) -> str:
    decoded = reader.size.pixels * reader.bands * reader.dtype.itemsize / 2**20
    if not reader.random_access:
        return (
            f"no random access: decoded whole, once per use, to {decoded:.0f} MiB; "
            "`foveate convert` makes a pyramid that is read by windows"
        )
    if len(reader.levels) == 1 and reader.size.megapixels > 4:
        advice = "`foveate convert` adds a pyramid"
        return f"by windows, at full resolution only: wide views and the overview read every pixel; {advice}"
    return "by windows, at the level a view needs"
