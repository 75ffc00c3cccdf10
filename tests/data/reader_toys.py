"""Images in the formats that GDAL does not write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_toys import write
from rasterio.enums import Resampling
from rasterio.env import Env

from foveate.data.readers.gdal import open_dataset

APERIO = "Aperio Image Library v11.2.1\r\n{width}x{height} (64x64) RGB|AppMag = 20|MPP = 0.25"


def write_npy(path: Path, pixels: np.ndarray, *, last: bool = False) -> Path:
    """(bands, H, W) as a .npy file; `last` stores the bands last."""
    np.save(path, pixels.transpose(1, 2, 0) if last else pixels)
    return path


def write_zarr(path: Path, pixels: np.ndarray, zarr_format: int = 3, **options) -> Path:
    """(bands, H, W) as a plain array in chunks of 64 pixels."""
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        chunks=(1, 64, 64)[-pixels.ndim :],
        dtype=pixels.dtype,
        zarr_format=zarr_format,
        **options,
    )
    array[:] = pixels
    return path


def write_ome_zarr(path: Path, levels, *, version: str = "0.4", scale: float = 0.25, unit: str = "micrometer") -> None:
    """Levels (bands, H, W), each half of the one before, as tczyx."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for i, level in enumerate(levels):
        array = group.create_array(
            str(i), shape=(1, level.shape[0], 1, *level.shape[1:]), chunks=(1, 1, 1, 64, 64), dtype=level.dtype
        )
        array[:] = level[None, :, None]
        own = [1.0, 1.0, 1.0, scale * 2**i, scale * 2**i]
        datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": own}]})
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    images = [{"version": version, "axes": axes, "datasets": datasets}]
    group.attrs.update(
        {"multiscales": images} if version == "0.4" else {"ome": {"version": version, "multiscales": images}}
    )


def write_svs(path: Path, pixels: np.ndarray, overviews=()) -> Path:
    """(3, H, W) uint8 as a TIFF that OpenSlide takes for one of Aperio's."""
    pytest.importorskip("openslide")
    plain = write(
        path.with_suffix(".tif"),
        pixels,
        driver="GTiff",
        tiled=True,
        blockxsize=64,
        blockysize=64,
        photometric="RGB",
        interleave="pixel",
        compress="lzw",
    )
    with open_dataset(plain, "r+") as file:
        text = APERIO.format(width=pixels.shape[2], height=pixels.shape[1])
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text)
    if overviews:
        with open_dataset(plain, "r+") as file:
            file.build_overviews(list(overviews), Resampling.average)
    return plain.rename(path)


def write_tiff_slide(path: Path, pixels: np.ndarray, micrometres: float = 0.25) -> Path:
    """(3, H, W) uint8 as slides are exported: tiles of JPEG, a pyramid, pixels per centimetre, no maker."""
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    jpeg = {"compress": "jpeg", "photometric": "YCBCR", "interleave": "pixel", "jpeg_quality": 95}
    write(path, pixels, driver="GTiff", **tiles, **jpeg)
    with open_dataset(path, "r+") as file:
        per_centimetre = 1e4 / micrometres
        tags = {"XRESOLUTION": per_centimetre, "YRESOLUTION": per_centimetre, "RESOLUTIONUNIT": 3}
        file.update_tags(**{f"TIFFTAG_{name}": value for name, value in tags.items()})
    with Env(JPEG_QUALITY_OVERVIEW=95), open_dataset(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    return path
