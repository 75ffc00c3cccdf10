"""The written contract, run on every reader and kind of file."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from data_toys import TRANSFORM, footprint_means, read_with_rasterio, smooth_image, write
from dicom_toys import read_dicom, write_dicom
from rasterio.env import Env
from reader_toys import write_npy, write_ome_zarr, write_svs, write_tiff_slide, write_zarr

from foveate.data.readers import ArrayReader, ImageReader, open_image
from foveate.data.readers.memory import halved
from foveate.data.readers.rescaled import RescaledReader
from foveate.geometry import Size, Window
from oracles import mirrored
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


def _zipped(folder: Path, pixels: np.ndarray) -> Path:
    source, path = _ome_zarr(folder, pixels, "0.5"), folder / "image.ome.zarr.zip"
    with zipfile.ZipFile(path, "w") as target:
        for part in sorted(source.rglob("*")):
            target.write(part, part.relative_to(source))
    return path


KINDS = {
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
CASES = [
    pytest.param((name, bands, dtype), id=f"{name}-{bands}-{dtype}")
    for name, kind in KINDS.items()
    for bands in kind.bands
    for dtype in kind.dtypes
]


@pytest.fixture(scope="module")
def opened(request, tmp_path_factory):
    name, bands, dtype = request.param
    with KINDS[name].opened(tmp_path_factory.mktemp("contract"), bands, dtype) as opened:
        yield opened


every_kind = pytest.mark.parametrize("opened", CASES, indirect=True)
some_kinds = pytest.mark.parametrize("opened", [c for c in CASES if "3-uint8" in c.id], indirect=True)


@every_kind
def test_describes_the_image(opened):
    reader = opened.reader
    assert isinstance(reader, ImageReader)
    assert reader.size == Size(HEIGHT, WIDTH)
    assert reader.bands == opened.pixels.shape[0]
    assert reader.dtype == opened.pixels.dtype
    assert reader.levels[0] == reader.size
    assert all(a.pixels > b.pixels for a, b in zip(reader.levels, reader.levels[1:], strict=False))


@every_kind
def test_level_0_is_exact(opened):
    whole = opened.reader.read(Window.of(opened.reader.size))
    assert whole.dtype == opened.pixels.dtype
    np.testing.assert_array_equal(whole, opened.pixels)
    np.testing.assert_array_equal(opened.reader.read(Window(37, 101, 5, 3)), opened.pixels[:, 37:42, 101:104])


@every_kind
@pytest.mark.parametrize(
    "window",
    [Window(-7, -3, 20, 30), Window(290, 400, 31, 33), Window(-310, -500, 700, 1100), Window(1000, -2000, 40, 50)],
    ids=["upper left", "lower right", "larger than the image", "far outside"],
)
def test_mirrors_outside(opened, window):
    expected = mirrored(opened.pixels, window.top, window.left, window.height, window.width)
    np.testing.assert_array_equal(opened.reader.read(window), expected)


@every_kind
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_means_are_areas(opened, factor):
    window = Window(8, 16, 24 * factor, 32 * factor)
    expected = footprint_means(mirrored(opened.pixels, 8, 16, window.height, window.width), 24, 32)
    found = opened.reader.read(window, Size(24, 32))
    assert found.dtype == opened.pixels.dtype
    assert np.abs(found - expected).max() <= opened.tolerance()


@some_kinds
@pytest.mark.parametrize(
    ("window", "size"),
    [
        (Window(-13, 351, 99, 101), Size(30, 41)),
        (Window(0, 0, HEIGHT, WIDTH), Size(19, 26)),
        (Window(-50, -60, 400, 600), Size(7, 11)),
        (Window(3, 5, 50, 20), Size(10, 20)),
    ],
)
def test_any_window_at_any_size(opened, window, size):
    expected = footprint_means(
        mirrored(opened.pixels, window.top, window.left, window.height, window.width), size.height, size.width
    )
    error = np.abs(opened.reader.read(window, size) - expected)
    inside = np.ix_(
        _inside(window.top, window.height, size.height, HEIGHT), _inside(window.left, window.width, size.width, WIDTH)
    )
    assert error[:, inside[0], inside[1]].max() <= opened.tolerance()
    # What is mirrored at an odd last row of a level lies up to two of its pixels off.
    assert error.max() <= opened.tolerance() + 8


def _inside(start, length, count, image):
    """Outputs whose footprint does not leave the image."""
    edges = start + np.arange(count + 1) * length / count
    return np.flatnonzero((edges[:-1] >= 0) & (edges[1:] <= image))


@some_kinds
def test_order_of_reads_changes_nothing(opened):
    requests = [
        (Window(-5, 3, 100, 100), Size(25, 25)),
        (Window(0, 0, 64, 64), None),
        (Window(9, 9, 90, 90), Size(9, 9)),
    ]
    first = [opened.reader.read(*request) for request in requests]
    again = [opened.reader.read(*request) for request in reversed(requests)]
    for a, b in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(a, b)


@some_kinds
def test_result_belongs_to_the_caller(opened):
    for window, size in [(Window(0, 0, 8, 8), None), (Window(-8, 0, 8, 8), None), (Window(0, 0, 16, 16), Size(8, 8))]:
        before = opened.reader.read(window, size)
        opened.reader.read(window, size)[:] = 0
        np.testing.assert_array_equal(opened.reader.read(window, size), before)


@some_kinds
def test_strips_change_nothing(opened, monkeypatch):
    requests = [(Window(0, 0, HEIGHT, WIDTH), Size(19, 26)), (Window(-90, -95, 500, 612), Size(33, 20))]
    whole = [opened.reader.read(*request) for request in requests]
    monkeypatch.setattr(opened.reader, "strip_bytes", 4096)
    for request, expected in zip(requests, whole, strict=True):
        np.testing.assert_array_equal(opened.reader.read(*request), expected)


@some_kinds
def test_georeference_is_kept(opened):
    place = opened.reader.georeference
    if opened.kind.georeferenced:
        assert place is not None
        assert "UTM zone 18N" in place.crs
        assert place.transform == pytest.approx(tuple(TRANSFORM)[:6])
    else:
        assert place is None


@some_kinds
def test_closing_twice_is_allowed(opened):
    reader = opened.again()
    reader.read(Window(0, 0, 4, 4))
    reader.close()
    reader.close()


@some_kinds
def test_says_what_it_is_called(opened):
    reader = opened.reader
    assert reader.location
    assert reader.path.stem
    assert reader.handles >= 0
    assert reader.resolution is None or min(reader.resolution.row, reader.resolution.col) > 0
