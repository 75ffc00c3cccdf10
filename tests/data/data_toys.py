"""Tiny images, masks and data sets on disk, for the data tests."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

from foveate.data.config import DataConfig

CLASSES = [{"name": "ground", "color": "#000000"}, {"name": "water", "color": [0, 0, 255]}]
TRANSFORM = Affine(2.5, 0, 425000, 0, -2.5, 5200000)


def write(path: Path, pixels: np.ndarray, *, overviews=(), georeferenced=False, **options) -> Path:
    """Write (bands, H, W) with rasterio."""
    bands, height, width = pixels.shape
    place = {"crs": "EPSG:32618", "transform": TRANSFORM} if georeferenced else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype, **place, **options}
        with rasterio.open(path, "w", **profile) as file:
            file.write(pixels)
        if overviews:
            with rasterio.open(path, "r+") as file:
                file.build_overviews(list(overviews), Resampling.average)
    return path


def read_with_rasterio(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.read()


def smooth_image(bands: int, height: int, width: int, dtype, seed: int = 0) -> np.ndarray:
    """Waves with a little noise (some 3 of 255 levels) over the range of the type."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    waves = [0.5 + 0.3 * np.sin(rows / (17 + b)) * np.cos(cols / (23 + b)) for b in range(bands)]
    values = np.stack(waves) + rng.uniform(-0.01, 0.01, (bands, height, width))
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def write_data_set(folder: Path, count: int = 3, size: tuple[int, int] = (90, 120), seed: int = 0) -> Path:
    """`count` PNG images with masks of classes 0 and 1 and some ignored pixels, as images/ and masks/."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        mask = (rng.random((1, *size)) < 0.2).astype(np.uint8)
        mask[:, :5] = 255
        write(folder / "images" / f"im{i}.png", smooth_image(3, *size, np.uint8, seed + i), driver="PNG")
        write(folder / "masks" / f"im{i}.png", mask, driver="PNG")
    return folder


def data_config(root: Path, **values) -> DataConfig:
    defaults = {"root": str(root), "folder": ".", "classes": CLASSES, "workers": 0}
    if "manifest" in values:
        del defaults["folder"]
    return DataConfig.parse({**defaults, **values})


def footprint_means(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, H, W) to (C, height, width): every output is the mean over its footprint; slow and obvious."""
    return _overlaps(values.shape[1], height) @ values @ _overlaps(values.shape[2], width).T


@cache
def _overlaps(length: int, count: int) -> np.ndarray:
    """(count, length): the part of footprint k that lies in pixel i."""
    step = length / count
    rows = [[max(0.0, min(i + 1, (k + 1) * step) - max(i, k * step)) for i in range(length)] for k in range(count)]
    return np.array(rows) / step
