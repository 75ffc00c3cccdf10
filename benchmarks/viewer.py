"""How long a tile of the viewer takes: real rasters, and a synthetic one of ten gigapixels with a pyramid.

Tiles are drawn at random over all levels with more than one tile and made one after the other,
once the readers are open. Wall times depend on what else the machine does, the processor's mean time a tile does
not. Ten gigapixels are a sparse TIFF, of which a part of the tiles holds a texture: its size on disk is small, its grid
and its levels are not. Usage: python benchmarks/viewer.py
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import numpy as np
import rasterio
from timing import report

from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.page import TileGrid, TileIndex, TileService

REAL = ("slides/CMU-1-Small-Region.svs", "idrid/images/IDRiD_01.jpg", "geo/mosaic_cog1.tif")
TILE, WARM_UP = 512, 30
COLORS = {0: (31, 78, 121, 255), 1: (200, 183, 122, 255), 2: (63, 208, 224, 255)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, default=10_000, help="of the synthetic raster")
    parser.add_argument("--tiles", type=int, default=300, help="measured for each raster")
    options = parser.parse_args()
    root = Path(os.environ.get("FOVEATE_DATA", "data"))
    rows = [row for name in REAL if (root / name).exists() for row in measure([root / name], options.tiles)]
    with tempfile.TemporaryDirectory() as folder:
        image = make_raster(Path(folder) / "synthetic.tif", options.megapixels, bands=3)
        classes = make_raster(Path(folder) / "synthetic.classes.tif", options.megapixels, bands=1)
        rows += measure([image, classes], options.tiles)
    report("viewer", rows, {"cores": os.cpu_count(), "load": f"{os.getloadavg()[0]:.1f}", "tile": "256 px"})


def measure(paths: list[Path], count: int) -> list[dict[str, Any]]:
    """A row for every layer of a scene."""
    scene, rows = build_scene(find_inputs(paths)), []
    for number, layer in enumerate(scene.layers):
        tiles = drawn(TileGrid(layer.size), count + WARM_UP)
        with TileService(scene, threads=1) as service:
            for index in tiles[:WARM_UP]:
                seconds(service, number, index)
            processor = time.process_time()
            times = [seconds(service, number, index) for index in tiles[WARM_UP:]]
            processor = (time.process_time() - processor) / count
        rows.append(
            {
                "raster": paths[0].name,
                "layer": layer.kind,
                "megapixels": layer.size.megapixels,
                "tiles": len(times),
                "median, ms": 1000 * statistics.median(times),
                "p95, ms": 1000 * statistics.quantiles(times, n=20)[-1],
                "processor, ms": 1000 * processor,
            }
        )
    return rows


def drawn(grid: TileGrid, count: int) -> list[TileIndex]:
    """Tiles at random: every level is as likely, and every tile of it."""
    generator, first = (
        random.Random(0),
        max(0, grid.max_level - (max(grid.size.height, grid.size.width) // 256).bit_length()),
    )
    tiles = []
    for _ in range(count):
        level = generator.randint(first, grid.max_level)
        size = grid.level_size(level)
        tiles.append(
            TileIndex(level, generator.randrange(-(-size.width // 256)), generator.randrange(-(-size.height // 256)))
        )
    return tiles


def seconds(service: TileService, layer: int, index: TileIndex) -> float:
    start = time.perf_counter()
    service.submit(layer, index).result()
    return time.perf_counter() - start


def make_raster(path: Path, megapixels: int, bands: int) -> Path:
    """A sparse tiled TIFF with a pyramid; every seventh tile on the diagonals holds texture."""
    side, rng = int((megapixels * 1e6) ** 0.5) // TILE * TILE, np.random.default_rng(0)
    texture = np.kron(
        rng.integers(0, 3 if bands == 1 else 255, (bands, 64, 64), np.uint8), np.ones((1, 8, 8), np.uint8)
    )
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": bands, "width": side, "height": side, "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "SPARSE_OK": "TRUE", "BIGTIFF": "YES",
        "transform": rasterio.Affine.scale(0.5), "crs": "EPSG:32633",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        if bands == 1:
            target.write_colormap(1, COLORS)
        for row in range(side // TILE):
            for col in range(row % 7, side // TILE, 7 * 4):
                top, left = row * TILE, col * TILE
                target.write(texture, window=((top, top + TILE), (left, left + TILE)))
    factors = [2 << k for k in range((side // 256).bit_length() - 1)]
    resampling = rasterio.enums.Resampling.nearest if bands == 1 else rasterio.enums.Resampling.average
    with rasterio.Env(SPARSE_OK_OVERVIEW="YES", GDAL_CACHEMAX=512), rasterio.open(path, "r+") as target:
        target.build_overviews(factors, resampling)
    return path


if __name__ == "__main__":
    main()
