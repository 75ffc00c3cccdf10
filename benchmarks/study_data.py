"""The Earth of the study: the northern half of the Americas to train, the southern to choose, all else to test.

`aliased` makes the copy of a data set that the ablation of anti-aliasing needs.
Usage: python benchmarks/study_data.py FOLDER   (makes FOLDER/earth-study; set FOVEATE_DATA to FOLDER)
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

from foveate.demo.earth import TRAIN_COLS, TRAIN_ROWS, EarthFiles, make_earth
from foveate.files import written
from foveate.geometry import Window

HALF = TRAIN_ROWS // 2
TILED = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    earth = make_earth(folder / "earth")
    masks = {"elsewhere": earth.folder / "masks" / "earth.tif"}
    parts = {"north": Window(0, 0, HALF, TRAIN_COLS), "south": Window(HALF, 0, TRAIN_ROWS - HALF, TRAIN_COLS)}
    parts["elsewhere"] = Window(0, 0, *size_of(earth))
    for name, part in parts.items():
        cut(earth.image, part, folder / "earth-study" / "images" / f"{name}.tif")
        cut(masks.get(name, earth.labels), part, folder / "earth-study" / "masks" / f"{name}.tif")


def size_of(earth: EarthFiles) -> tuple[int, int]:
    with rasterio.open(earth.image) as source:
        return source.height, source.width


def cut(source: Path, part: Window, target: Path) -> None:
    """Write a part of a raster as a tiled file, on its place on the ground."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    place = ((part.top, part.bottom), (part.left, part.right))
    with rasterio.open(source) as raster, written(target, overwrite=False) as partial:
        pixels = np.asarray(raster.read(window=place))
        profile = TILED | {"dtype": pixels.dtype, "count": len(pixels), "height": part.height, "width": part.width}
        profile |= {"crs": raster.crs, "transform": raster.window_transform(place)}
        with rasterio.open(partial, "w", **profile) as out:
            out.write(pixels)


def aliased(source: Path, target: Path) -> None:
    """Copy a data set so that patches wider than their pixels are picked from the image, not averaged.

    Readers trust a file's coarse levels to be means; here they hold every second, fourth, ... pixel.
    """
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=lambda folder, names: names if Path(folder).name == "images" else [])
    for image in sorted((source / "images").iterdir()):
        pick(image, partial / "images" / f"{image.stem}.tif")
    partial.rename(target)


def pick(source: Path, target: Path) -> None:
    """Write an image as a tiled file whose coarse levels are picked pixels."""
    with rasterio.open(source) as raster:
        profile = TILED | {"dtype": "uint8", "count": raster.count, "height": raster.height, "width": raster.width}
        with rasterio.open(target, "w", **profile) as out:
            out.write(raster.read())
    with rasterio.open(target, "r+") as out:
        out.build_overviews([2, 4, 8, 16, 32], Resampling.nearest)


if __name__ == "__main__":
    main()
