"""Every kind of file that the reader contract is tested on."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_toys import footprint_means, read_with_rasterio, smooth_image, write
from dicom_toys import read_dicom, write_dicom
from rasterio.env import Env
from reader_toys import write_npy, write_ome_zarr, write_svs, write_tiff_slide, write_zarr

from foveate.data.readers import ArrayReader, ImageReader, open_image
from foveate.data.readers.array import halved
from foveate.data.readers.derived import RescaledReader
from foveate.geometry import Size, Window
from server_toys import served

HEIGHT, WIDTH = 301, 413  # multiples of nothing
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}
INTEGERS = ("uint8", "uint16")


@dataclass(frozen=True)
class Opened:
    reader: ImageReader
    pixels: np.ndarray
    kind: "Kind"
    again: Callable[[], ImageReader]

    def tolerance(self) -> float:
        unit = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[self.pixels.dtype.name]
        return self.kind.tolerance * unit


@dataclass(frozen=True)
class Kind:
    dtypes: tuple = ("uint8", "uint16", "float32")
    bands: tuple = (1, 3, 5)
    tolerance: float = 1.0  # of means, in grey levels of 8 bits: rounding where nothing is stored
    georeferenced: bool = False
    decoder: Callable[[Path], np.ndarray] | None = None  # another one; where storing is lossy, its pixels are expected

    @contextmanager
    def opened(self, folder: Path, bands: int, dtype: str) -> Iterator[Opened]:
        pixels = smooth_image(bands, HEIGHT, WIDTH, dtype)
        path = self.write(folder, pixels)
        stored = self.decoder(path) if self.decoder else pixels
        with open_image(path, keep_alpha=True) as reader:
            yield Opened(reader, stored, self, lambda: open_image(path))

    def write(self, folder: Path, pixels: np.ndarray) -> Path:
        raise NotImplementedError


@dataclass(frozen=True)
class Gdal(Kind):
    suffix: str = "tif"
    options: dict = field(default_factory=dict)
    overviews: tuple = ()
    georeferenced: bool = True

    @contextmanager
    def opened(self, folder, bands, dtype):
        with Env() as env:
            if self.options["driver"] not in env.drivers():
                pytest.skip(f"GDAL is built without {self.options['driver']}")
        with super().opened(folder, bands, dtype) as opened:
            yield opened

    def write(self, folder, pixels):
        path = folder / f"image.{self.suffix}"
        return write(path, pixels, overviews=self.overviews, georeferenced=self.georeferenced, **self.options)


@dataclass(frozen=True)
class Written(Kind):
    writer: Callable[[Path, np.ndarray], Path] = write_npy

    def write(self, folder, pixels):
        return self.writer(folder, pixels)


@dataclass(frozen=True)
class InMemory(Kind):
    @contextmanager
    def opened(self, folder, bands, dtype):
        pixels = smooth_image(bands, HEIGHT, WIDTH, dtype)
        yield Opened(ArrayReader(pixels), pixels, self, lambda: ArrayReader(pixels))


@dataclass(frozen=True)
class Http(Gdal):
    @contextmanager
    def opened(self, folder, bands, dtype):
        pixels = smooth_image(bands, HEIGHT, WIDTH, dtype)
        name = self.write(folder, pixels).name
        with served(folder) as server, open_image(f"{server.url}/{name}", keep_alpha=True) as reader:
            yield Opened(reader, pixels, self, lambda: open_image(f"{server.url}/{name}"))


@dataclass(frozen=True)
class Rescaled(Kind):
    """Its pixels are what it reads at once, which are the means of the stored ones."""

    stored: tuple[int, int] = (HEIGHT, WIDTH)
    overviews: tuple = ()

    @contextmanager
    def opened(self, folder, bands, dtype):
        stored = smooth_image(bands, *self.stored, dtype)
        path = write(folder / "image.tif", stored, driver="GTiff", overviews=self.overviews, **TILES)
        with self.reader(path) as reader:
            opened = Opened(reader, reader.read(Window.of(reader.size)), self, lambda: self.reader(path))
            expected = footprint_means(stored.astype(np.float64), HEIGHT, WIDTH)
            assert np.abs(opened.pixels - expected).max() <= opened.tolerance()
            yield opened

    def reader(self, path):
        return RescaledReader(open_image(path), Size(HEIGHT, WIDTH))


def _ome_zarr(folder: Path, pixels: np.ndarray, version: str) -> Path:
    path = folder / "image.ome.zarr"
    write_ome_zarr(path, [pixels, halved(pixels)], version=version)
    return path


def _pages(folder: Path, pixels: np.ndarray, levels: int = 1, **options) -> Path:
    """Channels as pages, with levels in sub-directories."""
    path, shared = folder / "image.ome.tif", {"tile": (64, 64), "photometric": "minisblack"}
    with tifffile.TiffWriter(path, **options) as file:
        file.write(pixels, subifds=levels - 1, metadata={"axes": "CYX"}, **shared)
        for _ in range(levels - 1):
            pixels = halved(pixels)
            file.write(pixels, subfiletype=1, **shared)
    return path


def _imagej(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "image.tif"
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "CYX"})
    return path


def _zipped(folder: Path, pixels: np.ndarray) -> Path:
    source, path = _ome_zarr(folder, pixels, "0.5"), folder / "image.ome.zarr.zip"
    with zipfile.ZipFile(path, "w") as target:
        for part in sorted(source.rglob("*")):
            target.write(part, part.relative_to(source))
    return path


def _band_files(folder: Path, pixels: np.ndarray) -> Path:
    for number, band in enumerate(pixels):
        write(folder / f"image_B{number:02}.tif", band[None], driver="GTiff", overviews=(2, 4), **TILES)
    return folder / "image_{band}.tif"


KINDS = {
    "band_files": Written(writer=_band_files, tolerance=3),
    "tiled_pyramid": Gdal(options={"driver": "GTiff", **TILES}, overviews=(2, 4), tolerance=3),
    "striped": Gdal(options={"driver": "GTiff", "tiled": False}),
    "bigtiff": Gdal(options={"driver": "GTiff", "bigtiff": "YES", **TILES}),
    "cog": Gdal(options={"driver": "COG", "blocksize": 128, "overview_resampling": "average"}, tolerance=3),
    "http": Http(
        ("uint8",), (3,), options={"driver": "COG", "blocksize": 128, "overview_resampling": "average"}, tolerance=3
    ),
    # The low band of a wavelet is smooth, but no plain mean.
    "jpeg2000": Gdal(
        INTEGERS, suffix="jp2", options={"driver": "JP2OpenJPEG", "quality": "100", "reversible": "YES"}, tolerance=4
    ),
    "ome_tiff": Written(writer=_pages),
    # Halving 301 rows twice makes 76 rows of four pixels: at the far end they lie three quarters of their pixel off.
    "ome_tiff_levels": Written(
        bands=(3,), writer=lambda folder, pixels: _pages(folder, pixels, 3, bigtiff=True), tolerance=12
    ),
    "imagej": Written(bands=(3,), writer=_imagej),
    "png": Gdal(INTEGERS, (1, 3), suffix="png", options={"driver": "PNG"}, georeferenced=False, tolerance=3),
    "jpeg": Gdal(
        ("uint8",), (1, 3), suffix="jpg", options={"driver": "JPEG", "quality": 95}, georeferenced=False,
        decoder=read_with_rasterio, tolerance=3,
    ),
    "array": InMemory(tolerance=3),
    "npy": Written(writer=lambda folder, pixels: write_npy(folder / "image.npy", pixels)),
    "npy_last": Written(writer=lambda folder, pixels: write_npy(folder / "image.npy", pixels, last=True)),
    "zarr2": Written(writer=lambda folder, pixels: write_zarr(folder / "image.zarr", pixels, 2)),
    "zarr3": Written(writer=lambda folder, pixels: write_zarr(folder / "image.zarr", pixels, 3)),
    "ome_zarr_4": Written(writer=lambda folder, pixels: _ome_zarr(folder, pixels, "0.4"), tolerance=3),
    "ome_zarr_5": Written(writer=lambda folder, pixels: _ome_zarr(folder, pixels, "0.5"), tolerance=3),
    "zarr_zip": Written(("uint8",), (3,), writer=_zipped, tolerance=3),
    "slide": Written(
        ("uint8",), (3,), writer=lambda folder, pixels: write_svs(folder / "image.svs", pixels), tolerance=1
    ),
    # Its levels are 1.994 and 3.966 times smaller, so that OpenSlide meets their pixels up to a quarter of one off.
    "slide_pyramid": Written(
        ("uint8",), (3,), writer=lambda folder, pixels: write_svs(folder / "image.svs", pixels, (2, 4)), tolerance=4
    ),
    # A coarse level is compressed by itself, which changes it as much as level 0.
    "slide_tiff": Written(
        ("uint8",), (3,), writer=lambda folder, pixels: write_tiff_slide(folder / "image.tif", pixels),
        decoder=read_with_rasterio, tolerance=7,
    ),
    "slide_dicom": Written(
        ("uint8",), (3,), writer=lambda folder, pixels: write_dicom(folder, [pixels, halved(pixels)])[0],
        decoder=read_dicom, tolerance=7,
    ),
    "rescaled": Rescaled(stored=(430, 590), overviews=(2, 4), tolerance=3),
    "rescaled_levels": Rescaled(bands=(3,), stored=(900, 1240), overviews=(2, 4, 8), tolerance=4),
    "rescaled_finer": Rescaled(bands=(3,), stored=(150, 206), tolerance=3),
}  # fmt: skip
