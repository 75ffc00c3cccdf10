"""A small data set on disk, and a configuration that trains on it in seconds."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
import yaml
from rasterio.errors import NotGeoreferencedWarning

from foveate.data.labels import LabelReader, LabelTable, RasterLabels


def labels_of(reader, classes, label_map=None, *, area=None, **options) -> LabelReader:
    """Labels from a mask that an image reader gives."""
    table = LabelTable(classes, label_map, **options)
    return LabelReader(RasterLabels(reader, table), area=area, closing=reader.close)


def write_image(path: Path, pixels: np.ndarray, **profile) -> Path:
    """(C, H, W) pixels as a file of the suffix's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    count, height, width = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, dtype=pixels.dtype, count=count, height=height, width=width, **profile
        ) as target:
            target.write(pixels)
    return path


def shapes(seed: int, height: int = 150, width: int = 170) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (3, H, W) of bright discs on dark ground, and its labels (1, H, W): 1 inside the discs."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    label = np.zeros((1, height, width), np.uint8)
    for row, col, radius in zip(rng.integers(0, height, 6), rng.integers(0, width, 6), rng.integers(8, 30, 6)):  # noqa: B905
        label[0][(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 1
    image = rng.normal(80, 20, (3, height, width)) + 90 * label
    return image.clip(0, 255).astype(np.uint8), label


def make_data_set(folder: Path, names=("a", "b", "c", "d"), suffix=".png") -> Path:
    for seed, name in enumerate(names):
        image, label = shapes(seed)
        write_image(folder / "images" / f"{name}{suffix}", image)
        write_image(folder / "masks" / f"{name}.png", label)
    return folder


def toy_config(root: Path, **training) -> dict:
    return {
        "name": "toy",
        "data": {
            "root": str(root),
            "folder": "toy",
            "classes": [{"name": "ground", "color": "#202020"}, {"name": "disc", "color": "#e0c040"}],
            "split": {"val": ["c"], "test": ["d"]},
            "workers": 0,
        },
        "foveation": {
            "patch_size": 32,
            "fields_of_view": [32, 64],
            "overview_downsample": 8,
            "estimator": {"name": "gumbel"},
        },
        "network": {
            "architecture": "unet",
            "encoder": "resnet18",
            "weights": None,
            "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        },
        "training": {
            "steps": 6,
            "validate_every": 3,
            "locations_per_step": 4,
            "images_per_step": 2,
            "learning_rate": 1e-3,
            "validation_locations": 8,
            **training,
        },
        "inference": {"block_size": 64, "batch_size": 8},
    }


def write_config(path: Path, tree: dict) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path
