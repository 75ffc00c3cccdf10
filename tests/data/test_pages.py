"""Channels are bands; planes are chosen or refused by name; levels, thumbnails and masks are told apart."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_toys import smooth_image, write

from foveate.data.pyramids import convert
from foveate.data.readers import open_image
from foveate.data.readers.base import Address, plane_of
from foveate.errors import ConfigError, SeveralPlanesError, UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.runs.predict import stem_of

SIZE = (70, 90)


def stack(*shape: int, dtype="uint8") -> np.ndarray:
    """Planes of different grey."""
    planes = np.arange(np.prod(shape)).reshape(*shape, 1, 1) * 3
    return (planes + smooth_image(1, *SIZE, np.uint8)[0] // 4).astype(dtype)


def whole(path, **options):
    with open_image(path, **options) as image:
        return image.read(Window.of(image.size))


def ome(path, pixels, axes, **options):
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": axes, **options})
    return path


@pytest.mark.parametrize("axes", ["CYX", "CZYX", "TCYX", "TZCYX"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_are_bands(tmp_path, kind, axes):
    pixels = stack(*(3 if axis == "C" else 1 for axis in axes[:-2]), dtype="uint16")
    path = tmp_path / "i.ome.tif"
    if kind == "ome":
        ome(path, pixels, axes)
    else:
        order = [axes.index(axis) if axis in axes else None for axis in "TZCYX"]
        full = pixels.transpose([place for place in order if place is not None])
        tifffile.imwrite(path, full, imagej=True, metadata={"axes": "".join(a for a in "TZCYX" if a in axes)})
    with open_image(path) as image:
        assert (image.bands, image.format) == (3, {"ome": "OME-TIFF", "imagej": "ImageJ TIFF"}[kind])
    np.testing.assert_array_equal(whole(path), pixels.reshape(3, *SIZE))


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_planes_are_refused_by_name_or_chosen(tmp_path, kind):
    pixels, path = stack(2, 4, 3), tmp_path / "i.tif"
    tifffile.imwrite(path, pixels, **{kind: True}, photometric="minisblack", metadata={"axes": "TZCYX"})
    with pytest.raises(SeveralPlanesError, match=r"2 along t and 4 along z.*data\.plane=\{t: 1, z: 1\}"):
        open_image(path)
    with pytest.raises(SeveralPlanesError, match="2 along t"):
        open_image(path, plane=1)  # of two axes one number says nothing
    with pytest.raises(SeveralPlanesError, match="4 planes along z, counted from 1; got 5"):
        open_image(path, plane={"t": 1, "z": 5})
    np.testing.assert_array_equal(whole(path, plane={"t": 2, "z": 3}), pixels[1, 2])


def test_one_number_is_enough_for_one_axis(tmp_path):
    pixels = stack(4, 2)
    path = ome(tmp_path / "i.ome.tif", pixels, "ZCYX")
    np.testing.assert_array_equal(whole(path, plane=4), pixels[3])
    np.testing.assert_array_equal(whole(path, plane={"z": 1, "t": 7}), pixels[0])  # there is no t to choose from


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("described", [False, True])
def test_pages_without_a_name_are_refused_chosen_or_bands(tmp_path, colours, described):
    pixels, path = stack(3), tmp_path / "i.tif"
    if colours:
        pixels = np.stack([pixels, pixels + 1, pixels + 2], axis=-1)
    options = {} if described else {"metadata": None}
    tifffile.imwrite(path, pixels, photometric="rgb" if colours else "minisblack", **options)
    with pytest.raises(SeveralPlanesError, match=r"3 along page.*data\.plane=bands"):
        open_image(path)
    bands = pixels.transpose(0, 3, 1, 2) if colours else pixels[:, None]
    np.testing.assert_array_equal(whole(path, plane=2), bands[1])
    np.testing.assert_array_equal(whole(path, plane="bands"), bands.reshape(-1, *SIZE))


def test_channels_of_several_samples(tmp_path):
    pixels = np.stack([stack(2), stack(2) + 50, stack(2) + 100], axis=-1)
    path = tmp_path / "i.ome.tif"
    tifffile.imwrite(path, pixels, ome=True, photometric="rgb", metadata={"axes": "CYXS"})
    np.testing.assert_array_equal(whole(path), pixels.transpose(0, 3, 1, 2).reshape(6, *SIZE))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_one_page_of_colours_is_read_as_ever(tmp_path, planar):
    pixels, path = smooth_image(3, *SIZE, np.uint8), tmp_path / "i.tif"
    stored = pixels if planar == "separate" else pixels.transpose(1, 2, 0)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    with open_image(path) as image:
        assert (image.format, image.band_names) == ("GTiff", ("red", "green", "blue"))
    np.testing.assert_array_equal(whole(path), pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_pyramid_in_sub_directories(tmp_path, compression):
    pixels = smooth_image(2, 512, 640, np.uint16)
    levels = [pixels, pixels[:, ::2, ::2], pixels[:, ::4, ::4]]
    path, options = tmp_path / "i.ome.tif", {"tile": (64, 64), "compression": compression, "photometric": "minisblack"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(levels[0], subifds=2, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}}, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    with open_image(path) as image:
        assert image.band_names == ("DAPI", "CD3")
        assert image.levels == (Size(512, 640), Size(256, 320), Size(128, 160))
        for factor, level in zip((1, 2, 4), levels, strict=True):
            found = image.read(Window(0, 0, 512, 640), Size(512 // factor, 640 // factor))
            np.testing.assert_array_equal(found, level)


def test_pages_of_other_sizes_are_no_planes(tmp_path):
    pixels, path = smooth_image(1, 256, 320, np.uint8)[0], tmp_path / "i.tif"
    with tifffile.TiffWriter(path) as file:
        for page in (pixels, pixels[::2, ::2], pixels[::3, ::5]):
            file.write(page, photometric="minisblack", metadata=None)
    with open_image(path) as image:
        assert (image.bands, image.size) == (1, Size(256, 320))
    np.testing.assert_array_equal(whole(path)[0], pixels)


def test_a_mask_in_a_page_is_no_plane(tmp_path):
    path = write(tmp_path / "i.tif", smooth_image(3, *SIZE, np.uint8), driver="GTiff", overviews=(2,))
    with open_image(path) as image:
        assert (image.bands, image.format) == (3, "GTiff")


def test_what_tells_a_size_is_used(tmp_path):
    ome(tmp_path / "i.ome.tif", stack(2), "CYX", PhysicalSizeX=0.5, PhysicalSizeY=0.25, PhysicalSizeXUnit="µm")
    options = {"resolution": (2.0, 4.0), "metadata": {"axes": "CYX", "unit": "micron"}}
    tifffile.imwrite(tmp_path / "j.tif", stack(2), imagej=True, **options)
    for name in ("i.ome.tif", "j.tif"):
        with open_image(tmp_path / name) as image:
            assert (image.resolution.row, image.resolution.col) == pytest.approx((0.25e-6, 0.5e-6))


def test_planes_that_no_page_describes(tmp_path):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, stack(3), imagej=True, truncate=True, metadata={"axes": "ZYX"})
    with pytest.raises(UnsupportedImageError, match="claims 3 planes but describes 1"):
        open_image(path)


def test_conversion_keeps_all_channels_and_takes_a_plane(tmp_path):
    pixels = stack(4, 2)
    path, made = ome(tmp_path / "i.ome.tif", pixels, "ZCYX", Channel={"Name": ["red", "nir"]}), tmp_path / "o.tif"
    with pytest.raises(SeveralPlanesError):
        convert(path, made)
    convert(path, made, plane={"z": 2})
    np.testing.assert_array_equal(whole(made), pixels[1])
    with open_image(made) as image:
        assert image.band_names == ("red", "nir")


def test_planes_of_zarr(tmp_path):
    pixels = stack(4, 3)
    zarr, path = pytest.importorskip("zarr"), tmp_path / "i.zarr"
    names = ["z", "c", "y", "x"]
    zarr.create_array(str(path), shape=pixels.shape, chunks=(1, 1, 64, 64), dtype="uint8", dimension_names=names)[:] = (
        pixels
    )
    with pytest.raises(SeveralPlanesError, match="4 along z"):
        open_image(path)
    np.testing.assert_array_equal(whole(path, plane=3), pixels[2])


def test_pages_on_a_server_are_refused_only_where_they_may_be_planes(tmp_path):
    tifffile.imwrite(tmp_path / "planes.tif", stack(3), photometric="minisblack", metadata=None)
    with tifffile.TiffWriter(tmp_path / "label.tif") as file:
        for page in (stack(1)[0], stack(1)[0, ::2, ::3]):
            file.write(page, photometric="minisblack", metadata=None)
    # In another process: GDAL looks for pages without letting go of Python.
    program = (
        f"from server_toys import *; s = Server(Path({str(tmp_path)!r})); print(s.url, flush=True); s.serve_forever()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        try:
            with pytest.raises(UnsupportedImageError, match="3 pages of one size"):
                open_image(f"{url}/planes.tif")
            with open_image(f"{url}/label.tif") as image:
                assert image.bands == 1
        finally:
            server.kill()


def test_results_are_called_after_the_image(tmp_path):
    assert stem_of("a/scene.ome.tif") == stem_of("a/scene.OME.TIFF") == stem_of("scene.ome.zarr") == "scene"
    assert Address.of("a/.ome.tif").name == ".ome"


def test_planes_on_the_command_line():
    assert [plane_of(text) for text in (None, "3", "z=3,t=1", "bands")] == [None, 3, {"z": 3, "t": 1}, "bands"]
    for text in ("z", "z=a", "-1", "z=1,2"):
        with pytest.raises(ConfigError, match="z=3,t=1"):
            plane_of(text)
