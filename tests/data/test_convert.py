import numpy as np
import pytest
import rasterio
from data_toys import TRANSFORM, read_with_rasterio, smooth_image, write
from PIL import Image
from reader_toys import write_npy, write_ome_zarr, write_svs

from foveate.data.pyramids import convert
from foveate.data.readers import open_image
from foveate.errors import ConfigError, FoveateError, ImageReadError, OutputExistsError, UnsupportedImageError
from foveate.geometry import Size, Window


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
@pytest.mark.parametrize("compression", ["deflate", "zstd", "lzw", "none"])
def test_keeps_every_pixel(tmp_path, driver, compression):
    pixels = smooth_image(3, 700, 533, np.uint16)
    source = write(tmp_path / "a", pixels, driver=driver)
    shares = []
    convert(source, tmp_path / "b.tif", tile=128, compression=compression, progress=shares.append)
    np.testing.assert_array_equal(read_with_rasterio(tmp_path / "b.tif"), pixels)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    with open_image(tmp_path / "b.tif") as reader:
        assert reader.levels == (Size(700, 533), Size(350, 267), Size(175, 134))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_keeps_bands_and_georeference(tmp_path, dtype):
    pixels = smooth_image(5, 300, 200, dtype)
    source = write(tmp_path / "a.tif", pixels, driver="GTiff", georeferenced=True, nodata=0)
    convert(str(source), str(tmp_path / "b.tif"), tile=64)
    with rasterio.open(tmp_path / "b.tif") as file, rasterio.open(source) as original:
        np.testing.assert_array_equal(file.read(), pixels)
        assert (file.crs, file.nodata, file.colorinterp) == (original.crs, original.nodata, original.colorinterp)
        assert tuple(file.transform) == tuple(TRANSFORM)
        assert file.block_shapes[0] == (64, 64)


def test_strips_of_a_wide_image(tmp_path, monkeypatch):
    monkeypatch.setattr("foveate.tiff.raster.STRIP_BYTES", 1 << 14)
    pixels = smooth_image(1, 200, 900, np.uint8)
    convert(write(tmp_path / "a.tif", pixels, driver="GTiff"), tmp_path / "b.tif", tile=64)
    np.testing.assert_array_equal(read_with_rasterio(tmp_path / "b.tif"), pixels)


def test_jpeg_compression_is_close(tmp_path):
    pixels = smooth_image(3, 300, 400, np.uint8)
    convert(write(tmp_path / "a.tif", pixels, driver="GTiff"), tmp_path / "b.tif", compression="jpeg")
    assert np.abs(read_with_rasterio(tmp_path / "b.tif").astype(int) - pixels).mean() < 4


def test_labels_are_never_blended(tmp_path):
    labels = np.random.default_rng(0).choice(np.array([0, 7], np.uint8), (1, 600, 600))
    source = write(tmp_path / "a.tif", labels, driver="GTiff", photometric="palette", georeferenced=True)
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 7: (1, 2, 3, 255)})
    convert(source, tmp_path / "b.tif", labels=True)
    with rasterio.open(tmp_path / "b.tif", overview_level=0) as file:
        assert set(np.unique(file.read())) == {0, 7}
        assert file.colormap(1)[7] == (1, 2, 3, 255)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
def test_what_has_a_colour_table_or_class_names_is_never_blended(tmp_path, driver):
    ids = np.random.default_rng(0).integers(0, 6, (1, 600, 400)).astype(np.uint8)
    coloured, named = tmp_path / f"coloured.{driver}", write(tmp_path / "named.tif", ids, driver="GTiff")
    with rasterio.open(named, "r+") as file:
        file.update_tags(class_0="ground")
    if driver == "PNG":
        indexed = Image.fromarray(ids[0], "P")
        indexed.putpalette([channel for i in range(6) for channel in (40 * i, 255 - 40 * i, i)])
        indexed.save(coloured, "PNG")
    else:
        write(coloured, ids, driver="GTiff")
        with rasterio.open(coloured, "r+") as file:
            file.write_colormap(1, {i: (40 * i, 255 - 40 * i, i, 255) for i in range(6)})
    for source in (coloured, named):
        convert(source, tmp_path / "b.tif", tile=64, overwrite=True)
        with rasterio.open(tmp_path / "b.tif") as file:
            coarse = file.read(1, out_shape=(300, 200))
        assert (ids.reshape(300, 2, 200, 2) == coarse[:, None, :, None]).any(axis=(1, 3)).all()
        with pytest.raises(ConfigError, match="colour table cannot be compressed with 'jpeg'"):
            convert(source, tmp_path / "c.tif", compression="jpeg")


def test_refuses(tmp_path):
    source = write(tmp_path / "a.tif", smooth_image(5, 50, 50, np.uint8), driver="GTiff")
    out = tmp_path / "b.tif"
    with pytest.raises(ImageReadError, match="no image at"):
        convert(tmp_path / "none.tif", out)
    with pytest.raises(ConfigError, match="power of two from 64 to 4096, got 100"):
        convert(source, out, tile=100)
    with pytest.raises(ConfigError, match="got 5 bands of uint8"):
        convert(source, out, compression="jpeg")
    with pytest.raises(ConfigError, match="labels"):
        convert(source, out, compression="jpeg", labels=True)
    (tmp_path / "c.txt").write_text("text")
    with pytest.raises(UnsupportedImageError, match=r"c\.txt"):
        convert(tmp_path / "c.txt", out)
    assert not out.exists()
    convert(source, out)
    with pytest.raises(OutputExistsError):
        convert(source, out)
    convert(source, out, overwrite=True)


@pytest.mark.parametrize("driver", ["GTiff", "PNG", "JPEG"])
def test_damaged_source_leaves_nothing(tmp_path, driver):
    source = write(tmp_path / "a", smooth_image(3, 300, 300, np.uint8), driver=driver)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(FoveateError, match="could not read"):
        convert(source, tmp_path / "b.tif")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("kind", ["npy", "zarr", "svs"])
def test_what_gdal_does_not_read(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("foveate.tiff.raster.STRIP_BYTES", 1 << 14)
    pixels = smooth_image(3, 300, 413, np.uint8)
    source = tmp_path / f"a.{kind}"
    if kind == "npy":
        write_npy(source, pixels)
    elif kind == "zarr":
        write_ome_zarr(source, [pixels])
    else:
        write_svs(source, pixels)
    convert(source, tmp_path / "b.tif", tile=64)
    np.testing.assert_array_equal(read_with_rasterio(tmp_path / "b.tif"), pixels)
    with open_image(source) as before, open_image(tmp_path / "b.tif") as after:
        assert after.levels == (Size(300, 413), Size(150, 207))
        assert (after.resolution is None) == (kind == "npy")
        if before.resolution is not None:
            assert after.resolution.row == pytest.approx(before.resolution.row)
            assert after.resolution.col == pytest.approx(before.resolution.col)


def test_the_result_is_cloud_optimised_and_keeps_a_mask(tmp_path):
    pixels = smooth_image(3, 700, 533, np.uint8)
    valid = np.ones((700, 533), bool)
    valid[100:300, 50:90] = False
    source = write(tmp_path / "a.tif", pixels, driver="GTiff", georeferenced=True)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as file:
        file.write_mask(valid)
    convert(source, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with open_image(tmp_path / "b.tif") as reader:
        np.testing.assert_array_equal(reader.valid(Window.of(reader.size)), valid)
