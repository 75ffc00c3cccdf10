"""The names of classes beside a class map, where GDAL and QGIS look for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from foveate.data.config import ClassConfig
from foveate.files import written

# Of GDAL's attribute tables: name of a column, type (0 integer, 2 text) and use (5 value, 2 name, 6 to 8 colour).
_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))


def table_path(class_map: Path) -> Path:
    """Where the table of a class map lies."""
    return class_map.with_name(f"{class_map.name}.aux.xml")


def write_class_table(class_map: Path, classes: Sequence[ClassConfig], *, overwrite: bool = False) -> Path:
    """Write category names and a raster attribute table; a TIFF has no place for them.

    Args:
        class_map: the TIFF.
        classes: names and colours, in the order of the class ids.
        overwrite: replace an existing table.

    Raises:
        OutputExistsError: when there is a table and `overwrite` is false.
        OutputWriteError: when it cannot be written.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    names = ElementTree.SubElement(band, "CategoryNames")
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        _texts(column, Name=name, Type=kind, Usage=usage)
    for value, item in enumerate(classes):
        _texts(names, Category=item.name)
        row = ElementTree.SubElement(table, "Row", index=str(value))
        for entry in (value, item.name, *item.rgb):
            _texts(row, F=entry)
    path = table_path(class_map)
    with written(path, overwrite=overwrite) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8")
    return path


def _texts(parent: ElementTree.Element, **values: object) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)
