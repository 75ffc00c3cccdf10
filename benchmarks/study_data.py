"""Data of the study, made from what others publish; set FOVEATE_DATA to FOLDER.

FOLDER/earth-study: the northern half of the Americas to train, the southern to choose, all else to test.
FOLDER/drone, with --drone: the semantic drone data set at half of its repository's resolution, 400 images of 750 x 500
pixels, 22 classes. A clone of github.com/nonari/semantic_drone_dataset; not for commercial use.
`aliased` makes the copy of a data set that the ablation of anti-aliasing needs.
Usage: python benchmarks/study_data.py FOLDER [--drone CLONE]
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

from foveate.demo import IGNORE, TRAIN_COLS, TRAIN_ROWS, EarthFiles, make_earth
from foveate.files import written
from foveate.geometry import Window

HALF = TRAIN_ROWS // 2
TILED = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--drone", type=Path, metavar="CLONE", help="semantic_drone_dataset")
    options = parser.parse_args()
    make_earth_study(options.folder)
    if options.drone:
        make_drone(options.drone / "training_set", options.folder / "drone")


def make_earth_study(folder: Path) -> None:
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


def make_drone(source: Path, folder: Path) -> None:
    """Write images as means of 2 x 2 pixels, labels as ids in the order of the table; what has no class is 255."""
    table = (source / "gt" / "semantic" / "class_dict.csv").read_text().splitlines()[1:]
    colours = [tuple(int(part) for part in line.split(",")[1:]) for line in table]
    ids = np.full(1 << 24, IGNORE, dtype=np.uint8)
    for number, colour in enumerate(colours[1:-1]):  # neither "unlabeled" nor "conflicting"
        ids[_packed(np.array(colour))] = number
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for path in sorted((source / "low_res_images").glob("*.jpg")):
        labels = source / "gt" / "semantic" / "low_res_label_images" / f"{path.stem}.png"
        write_plain(halved(path, Resampling.average), folder / "images" / f"{path.stem}.tif")
        write_plain(ids[_packed(halved(labels, Resampling.nearest))][None], folder / "masks" / f"{path.stem}.tif")


def halved(path: Path, resampling: Resampling) -> np.ndarray:
    """Pixels (3, H / 2, W / 2) of a photograph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return np.asarray(source.read(out_shape=(3, source.height // 2, source.width // 2), resampling=resampling))


def _packed(colour: np.ndarray) -> np.ndarray:
    """One number for colours (3, ...)."""
    red, green, blue = colour.astype(np.int64)
    return red << 16 | green << 8 | blue


def write_plain(pixels: np.ndarray, target: Path) -> None:
    """Write a raster (bands, H, W) that has no place on the ground."""
    if target.exists():
        return
    profile = TILED | {"dtype": "uint8", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    with warnings.catch_warnings(), written(target, overwrite=False) as partial:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(partial, "w", **profile | {"compress": "none"}) as out:
            out.write(pixels)
        with rasterio.open(partial, "r+") as out:
            out.build_overviews([2, 4, 8, 16], Resampling.average if len(pixels) == 3 else Resampling.nearest)


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
