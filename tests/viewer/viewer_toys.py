"""A small image with predictions on it, as `foveate predict` leaves them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

from toys import write_image

HEIGHT, WIDTH, CELL = 700, 900, 16
NAMES, COLORS = ("ground", "disc", "<b>hostile</b>"), ((32, 32, 32), (224, 192, 64), (0, 128, 200))
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5000000)}


@dataclass(frozen=True)
class Toy:
    image: Path
    labels: Path
    first: Path  # folders of predictions
    second: Path
    classes: np.ndarray
    fov: np.ndarray


def make_toy(folder: Path) -> Toy:
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    labels = ((rows // 90 + cols // 130) % 3).astype(np.uint8)
    classes = np.roll(labels, 7, axis=1)
    image = (rng.normal(60, 15, (1, HEIGHT, WIDTH)) + 50 * labels).clip(0, 255).astype(np.uint8).repeat(3, axis=0)
    scene = tiled(folder / "scene.tif", image)
    mask = tiled(folder / "mask.tif", labels[None], Resampling.nearest)
    fov = np.linspace(32, 128, (HEIGHT // CELL + 1) * (WIDTH // CELL + 1), dtype=np.float32)
    fov = fov.reshape(HEIGHT // CELL + 1, WIDTH // CELL + 1)
    for name, ids in (("first", classes), ("second", np.zeros_like(classes))):
        write_prediction(folder / name, ids, fov)
    return Toy(scene, mask, folder / "first", folder / "second", classes, fov)


def write_prediction(folder: Path, ids: np.ndarray, fov: np.ndarray) -> None:
    path = tiled(folder / "scene.classes.tif", ids[None], Resampling.nearest)
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, {i: (*color, 255) for i, color in enumerate(COLORS)})
        target.update_tags(**{f"class_{i}": name for i, name in enumerate(NAMES)})
    map_path = write_image(folder / "scene.fov.tif", fov[None], **PLACE)
    with rasterio.open(map_path, "r+") as target:
        target.update_tags(fields_of_view="[32, 128]", cell=str(CELL))
    write_passes(folder / "scene.passes.tif")
    write_polygons(folder / "scene.polygons.geojson")
    tiled(folder / "scene.probabilities.tif", probabilities_of(ids), nodata=255)
    with rasterio.open(folder / "scene.probabilities.tif", "r+") as target:
        target.descriptions = NAMES
    confidence = np.full((1, HEIGHT, WIDTH), 127, np.uint8)
    confidence[..., :50] = 255
    tiled(folder / "scene.confidence.tif", confidence, nodata=255)
    pixels = {name: int((ids == i).sum()) for i, name in enumerate(NAMES)}
    summary = {"image": "scene.tif", "fields_of_view": [32, 128], "class_pixels": pixels}
    (folder / "scene.json").write_text(json.dumps(summary))


# In pixels: columns and rows of two corners. The second lies in the first.
POLYGONS = {"disc": (100, 80, 420, 400), "ground": (200, 200, 300, 300)}


def write_polygons(path: Path) -> Path:
    """Two rectangles in the coordinates of the scene."""
    features = [
        {
            "type": "Feature",
            "properties": {"class": name},
            "geometry": {"type": "Polygon", "coordinates": [on_ground(corners)]},
        }
        for name, corners in POLYGONS.items()
    ]
    crs = {"type": "name", "properties": {"name": PLACE["crs"]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


def on_ground(corners):
    left, top, right, bottom = corners
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return [[400000 + x / 2, 5000000 - y / 2] for x, y in ring]


def write_passes(path: Path) -> None:
    """Looks of 128 px everywhere, and closer ones of 64 px, of which the central 32 are used, on the left."""
    passes = np.zeros((2, -(-HEIGHT // 32), -(-WIDTH // 32)), np.uint8)
    passes[0, :, :14] = 254
    passes[1, ::4, ::4] = 254
    write_image(path, passes, nodata=0, crs=PLACE["crs"], transform=rasterio.Affine(16, 0, 400000, 0, -16, 5000000))
    with rasterio.open(path, "r+") as target:
        target.update_tags(looks="[[64, 32], [128, 128]]", cell="32")


def probabilities_of(ids: np.ndarray) -> np.ndarray:
    """0.8 for the class of a pixel and 0.1 for the others; unknown in the first columns."""
    shares = np.where(ids == np.arange(len(NAMES))[:, None, None], 203, 25).astype(np.uint8)
    shares[..., :50] = 255
    return shares


def tiled(path: Path, pixels: np.ndarray, resampling: Resampling = Resampling.average, **profile) -> Path:
    """A tiled TIFF with overviews."""
    write_image(path, pixels, tiled=True, blockxsize=128, blockysize=128, **PLACE, **profile)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4], resampling)
    return path
