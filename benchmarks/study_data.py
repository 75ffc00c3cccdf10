"""The Earth of the study: the northern half of the Americas to train, the southern to choose, all else to test.

Usage: python benchmarks/study_data.py FOLDER   (makes FOLDER/earth-study; set FOVEATE_DATA to FOLDER)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio

from foveate.demo.earth import TRAIN_COLS, TRAIN_ROWS, EarthFiles, make_earth
from foveate.files import written
from foveate.geometry import Window

HALF = TRAIN_ROWS // 2


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
        profile = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        profile |= {"dtype": pixels.dtype, "count": len(pixels), "height": part.height, "width": part.width}
        profile |= {"crs": raster.crs, "transform": raster.window_transform(place)}
        with rasterio.open(partial, "w", **profile) as out:
            out.write(pixels)


if __name__ == "__main__":
    main()
