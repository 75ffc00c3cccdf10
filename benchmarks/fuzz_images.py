"""Images of every format, and all that one shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import zarr

from foveate.data.readers import open_image
from foveate.geometry import Size, Window


def pixels(bands: int = 3, height: int = 150, width: int = 170, dtype: str = "uint8") -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    waves = np.stack([100 + 60 * np.sin(rows / (9 + b)) + 60 * np.cos(cols / (11 + b)) for b in range(bands)])
    return (waves + np.random.default_rng(0).normal(0, 3, waves.shape)).clip(0, 255).astype(dtype)


def raster(name: str, driver: str = "GTiff", overviews: bool = False, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = pixels(options.get("count", 3), dtype=options.get("dtype", "uint8"))
        profile = {"driver": driver, "count": len(values), "height": 150, "width": 170, "dtype": "uint8", **options}
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(values)
        if overviews:
            with rasterio.open(folder / name, "r+") as file:
                file.build_overviews([2, 4], rasterio.enums.Resampling.average)
        return folder / name

    return make


def slide(folder: Path) -> Path:
    path = folder / "a.svs"
    about = "Aperio Image Library v11.2.1\r\n170x150 (64x64) RGB|AppMag = 20|MPP = 0.25"
    profile = {"driver": "GTiff", "count": 3, "height": 150, "width": 170, "dtype": "uint8", "compress": "jpeg"}
    with rasterio.open(path, "w", tiled=True, blockxsize=64, blockysize=64, **profile) as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=about)
        file.write(pixels())
    return path


def npy(folder: Path) -> Path:
    np.save(folder / "a.npy", pixels())
    return folder / "a.npy"


def zarr_image(version: int, *, zipped: bool = False, compressed: bool = True) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        options = {} if compressed else {"compressors": None}
        levels = [pixels(), pixels()[:, ::2, ::2]]
        group = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=version)
        for i, level in enumerate(levels):
            array = group.create_array(str(i), shape=level.shape, chunks=(1, 64, 64), dtype=level.dtype, **options)
            array[:] = level
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
        scales = [{"type": "scale", "scale": [1, 0.25 * 2**i, 0.25 * 2**i]} for i in range(2)]
        sets = [{"path": str(i), "coordinateTransformations": [scales[i]]} for i in range(2)]
        images = [{"version": "0.4", "axes": axes, "datasets": sets}]
        group.attrs.update(
            {"multiscales": images} if version == 2 else {"ome": {"version": "0.5", "multiscales": images}}
        )
        if zipped:
            shutil.make_archive(str(folder / "a"), "zip", folder / "a.zarr")
            shutil.rmtree(folder / "a.zarr")
            return folder / "a.zip"
        return folder / "a.zarr"

    return make


def vrt(folder: Path) -> Path:
    source = raster("source.tif")(folder)
    rasterio.shutil.copy(source, folder / "a.vrt", driver="VRT")
    return folder / "a.vrt"


def written(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return make


def see(path: Path) -> Any:
    """Everything that an image shows."""
    with open_image(path) as reader:
        if reader.size.pixels > 10_000_000:  # what was changed says so; nobody reads all of it here
            return reader.size, reader.bands, reader.read(Window(0, 0, 64, 64)).tobytes()
        whole = Window.of(reader.size)
        parts = [reader.read(whole), reader.read(whole, Size(37, 42)), reader.valid(whole)]
        facts = (reader.size, reader.bands, str(reader.dtype), reader.georeference, reader.resolution)
        return facts, [sha256(part.tobytes()).hexdigest() for part in parts]
