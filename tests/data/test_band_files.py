"""Images whose bands lie in several files."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from data_toys import footprint_means

import foveate
from foveate.data.manifest import load_samples
from foveate.data.readers import open_image
from foveate.data.readers.base import pattern_of
from foveate.errors import DatasetError, ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window
from foveate.runs.config import RunConfig
from foveate.runs.init import init
from toys import shapes, toy_config, write_image

NAMES = ("B02", "B03", "B04")
UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5000000)}


def write_bands(folder, pixels, name="T33_{band}.tif", **profile):
    """A file for each band."""
    for band, values in zip(NAMES, pixels, strict=True):
        write_image(folder / name.format(band=band), values[None], **{**UTM, **profile})
    return folder / name


def random(height=90, width=110, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 4000, (3, height, width)).astype(dtype)


def test_bands_are_read_in_the_order_of_their_names(tmp_path):
    pixels = random()
    path = write_bands(tmp_path, pixels)
    with open_image(path, band_files=("B04", "B02")) as image:
        assert (image.bands, image.dtype, image.size) == (2, np.uint16, Size(90, 110))
        assert image.band_names == ("B04", "B02")
        assert image.georeference.transform[:2] == (10, 0)
        assert np.array_equal(image.read(Window(5, 7, 30, 40)), pixels[[2, 0], 5:35, 7:47])
    with open_image(path) as image:
        assert image.band_names == NAMES
        coarse = image.read(Window.of(image.size), Size(9, 11))
        assert np.abs(coarse - footprint_means(pixels.astype(float), 9, 11)).max() <= 1


def test_jpeg_2000_as_sentinel_2_comes(tmp_path):
    pixels = np.stack([np.add.outer(np.arange(96), k * np.arange(128)) for k in range(3)]).astype(np.uint16)
    for band, values in zip(NAMES, pixels, strict=True):
        options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "dtype": "uint16", "count": 1}
        with rasterio.open(tmp_path / f"T33_{band}.jp2", "w", width=128, height=96, **options, **UTM) as target:
            target.write(values[None])
    with open_image(tmp_path / "T33_{band}.jp2", band_files=NAMES) as image:
        assert image.format == "3 files of JP2OpenJPEG"
        assert np.array_equal(image.read(Window.of(image.size)), pixels)


def test_coarser_bands_are_read_on_the_finest_grid_and_said(tmp_path):
    pixels = random(80, 120)
    path = write_bands(tmp_path, pixels)
    coarse = random(40, 60)[0]
    write_image(tmp_path / "T33_B03.tif", coarse[None], crs=UTM["crs"], transform=UTM["transform"] @ Affine.scale(2))
    with open_image(path, band_files=NAMES) as image:
        assert image.size == Size(80, 120)
        assert image.remarks == ("the pixels of B03 are 2 times as large as the finest; each is repeated",)
        found = image.read(Window(10, 20, 31, 41))
    assert np.array_equal(found[[0, 2]], pixels[[0, 2], 10:41, 20:61])
    assert np.array_equal(found[1], coarse.repeat(2, 0).repeat(2, 1)[10:41, 20:61])


def other_size(folder):
    write_image(folder / "T33_B03.tif", random(50, 110)[:1], **UTM)


def other_place(folder):
    write_image(
        folder / "T33_B03.tif", random()[:1], **UTM | {"transform": Affine.translation(500, 0) @ UTM["transform"]}
    )


def other_zone(folder):
    write_image(folder / "T33_B03.tif", random()[:1], **UTM | {"crs": "EPSG:32634"})


def other_type(folder):
    write_image(folder / "T33_B03.tif", random(dtype=np.float32)[:1], **UTM)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_size, "different sizes (B02 110 x 90, B03 110 x 50"),
        (other_place, "different places: B03"),
        (other_zone, "different places: B03"),
        (other_type, "B03 float32"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, said):
    path = write_bands(tmp_path, random())
    change(tmp_path)
    with pytest.raises(UnsupportedImageError) as caught:
        open_image(path, band_files=NAMES)
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    path = write_bands(tmp_path, random())
    with pytest.raises(ImageReadError, match=r"lacks .*T33_B08\.tif; data\.band_files names B02, B08"):
        open_image(path, band_files=("B02", "B08"))
    with pytest.raises(ImageReadError, match="no file has this name"):
        open_image(tmp_path / "other_{band}.tif")


def test_what_one_band_lacks_is_known_of_the_others(tmp_path):
    pixels = random()
    pixels[0, :10] = 0
    path = write_bands(tmp_path, pixels, nodata=0)
    pixels[pixels == 0] = 0
    with open_image(path, band_files=NAMES) as image:
        assert image.masked
        found = image.read_known(Window(0, 0, 20, 20))
        assert np.array_equal(found.known, pixels[:, :20, :20] != 0)
        assert image.valid(Window(0, 0, 20, 20)).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T33_B02.jp2", "T33_{band}.jp2"),
        ("B02_2020.tif", "{band}_2020.tif"),
        ("B02_B03.tif", "B02_{band}.tif"),
        ("T33_B02A.jp2", "T33_B02A.jp2"),
        ("x_{band}.tif", "x_{band}.tif"),
    ],
)
def test_any_file_of_an_image_names_it(tmp_path, name, expected):
    assert pattern_of(tmp_path / name, NAMES).name == expected


def scenes(folder):
    for seed, name in enumerate("abc"):
        image, label = shapes(seed)
        write_bands(folder / "images", image, name=f"{name}_{{band}}.tif")
        write_image(folder / "masks" / f"{name}.tif", label, **UTM)
    return folder


def test_training_and_prediction_from_band_files(tmp_path):
    scenes(tmp_path / "toy")
    tree = toy_config(tmp_path, steps=2, validate_every=2)
    tree["data"] |= {"split": {"val": ["c"]}, "band_files": ["B04", "B03", "B02"]}
    run = foveate.train(RunConfig.parse(tree), tmp_path / "run", devices="cpu", progress=False)
    assert run.config.data.trained_on.names == ("B04", "B03", "B02")
    assert run.predict(tmp_path / "toy/images/c_{band}.tif", tmp_path / "out")["height"] == 150
    run.predict(tmp_path / "toy/images/c_B03.tif", tmp_path / "other")
    with (
        rasterio.open(tmp_path / "out/c.classes.tif") as one,
        rasterio.open(tmp_path / "other/c_B03.classes.tif") as other,
    ):
        found = one.read(1)
        assert np.array_equal(found, other.read(1))
        assert one.crs == UTM["crs"]
    assert np.array_equal(run.predict(shapes(2)[0][::-1]).classes, found)
    tree["data"]["band_files"] = ["B02", "B08"]
    with pytest.raises((DatasetError, ImageReadError), match=r"lacks .*_B08\.tif"):
        foveate.train(RunConfig.parse(tree), tmp_path / "no", devices="cpu", progress=False)


def test_a_manifest_names_a_pattern(tmp_path):
    scenes(tmp_path / "toy")
    (tmp_path / "toy.csv").write_text("image,mask,split\ntoy/images/a_{band}.tif,toy/masks/a.tif,train\n")
    tree = toy_config(tmp_path)["data"] | {
        "folder": None,
        "manifest": "toy.csv",
        "split": {},
        "band_files": list(NAMES),
    }
    (sample,) = load_samples(RunConfig.parse(toy_config(tmp_path) | {"data": tree}).data)
    assert (sample.name, sample.image) == ("a", tmp_path / "toy/images/a_{band}.tif")


def test_init_finds_the_bands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = init(scenes(tmp_path / "toy"))
    assert done.config.data.band_files == ["B02", "B03", "B04"]
    assert done.found["images"].startswith("3, ")
