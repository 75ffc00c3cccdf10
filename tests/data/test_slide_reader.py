import sys

import numpy as np
import pytest
from data_toys import smooth_image, write
from dicom_toys import read_dicom, write_dicom
from reader_toys import write_svs, write_tiff_slide

from foveate.data.config import DataConfig
from foveate.data.manifest import load_samples
from foveate.data.readers import Resolution, open_image
from foveate.data.readers.array import halved
from foveate.data.readers.base import Address
from foveate.data.readers.openslide_reader import _background, _check_names, _opaque
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window

PIXELS = smooth_image(3, 300, 400, np.uint8)
JPEG = 8  # grey levels that quality 95, with colours at half the width, may change


@pytest.fixture
def slide(tmp_path):
    return write_svs(tmp_path / "a.svs", PIXELS)


def test_resolution_is_that_of_the_scanner(slide, monkeypatch):
    with open_image(slide) as reader:
        assert (type(reader).__name__, reader.format) == ("OpenSlideReader", "aperio")
        assert reader.resolution == Resolution(0.25e-6, 0.25e-6)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with open_image(slide) as reader:
        assert type(reader).__name__ == "RasterioReader"
        assert reader.resolution == Resolution(0.25e-6, 0.25e-6)


def test_a_plain_tiff_is_not_taken(tmp_path):
    pytest.importorskip("openslide")
    path = write(tmp_path / "a.tif", smooth_image(4, 300, 400, np.uint16), driver="GTiff", tiled=True)
    with open_image(path) as reader:
        assert (type(reader).__name__, reader.bands) == ("RasterioReader", 4)


def test_dicom_is_one_slide_by_whichever_of_its_files(tmp_path):
    files = write_dicom(tmp_path, [PIXELS, halved(PIXELS)], micrometres=0.5)
    for path in files:
        with open_image(path) as reader:
            assert (type(reader).__name__, reader.format) == ("OpenSlideReader", "dicom")
            assert reader.levels == (Size(300, 400), Size(150, 200))
            assert (reader.resolution.row, reader.resolution.col) == pytest.approx((0.5e-6, 0.5e-6))
            assert np.abs(reader.read(Window.of(reader.size)).astype(int) - PIXELS).max() <= JPEG
            # Half the size is the stored level as it is, not a mean of level 0.
            np.testing.assert_array_equal(reader.read(Window.of(reader.size), Size(150, 200)), read_dicom(files[1]))


def test_a_folder_of_dicom_is_a_slide(tmp_path):
    folder = tmp_path / "images" / "1.2.840"
    folder.mkdir(parents=True)
    write_dicom(folder, [PIXELS, halved(PIXELS)])
    with open_image(folder) as reader:
        assert (reader.format, reader.size) == ("dicom", Size(300, 400))
    (tmp_path / "masks").mkdir()
    write(tmp_path / "masks" / "1.2.840.png", PIXELS[:1], driver="PNG")
    classes = [{"name": name, "color": "#000000"} for name in "ab"]
    (sample,) = load_samples(DataConfig.parse({"folder": tmp_path, "classes": classes}))
    assert (sample.image, sample.name, sample.mask.name) == (folder, "1.2.840", "1.2.840.png")


def test_an_empty_folder_is_no_slide(tmp_path):
    with pytest.raises(UnsupportedImageError, match="no reader can open"):
        open_image(tmp_path)


def test_a_tiff_slide_without_a_maker(tmp_path):
    with open_image(write_tiff_slide(tmp_path / "a.tif", PIXELS, micrometres=0.5)) as reader:
        assert (type(reader).__name__, reader.bands) == ("RasterioReader", 3)
        assert reader.levels == (Size(300, 400), Size(150, 200), Size(75, 100))
        assert (reader.resolution.row, reader.resolution.col) == pytest.approx((0.5e-6, 0.5e-6))
        assert np.abs(reader.read(Window.of(reader.size)).astype(int) - PIXELS).max() <= JPEG
        assert np.abs(reader.read(Window.of(reader.size), Size(150, 200)).astype(int) - halved(PIXELS)).max() <= JPEG


def test_without_the_extra_the_small_picture_of_a_slide_is_not_the_slide(tmp_path, monkeypatch):
    path = tmp_path / "a.mrxs"
    write(path, PIXELS, driver="JPEG")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(UnsupportedImageError, match=r"pip install 'foveate\[wsi\]'"):
        open_image(path)


def test_nothing_scanned_is_background():
    pixels = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [100, 0, 0, 51]]], np.uint8)
    expected = [[10, 255, 224], [20, 255, 204], [30, 255, 204]]
    np.testing.assert_array_equal(_opaque(pixels, (255, 255, 255))[:, 0], expected)
    assert _background("0A0B0C") == (10, 11, 12)
    assert _background(None) == _background("no colour") == (255, 255, 255)


def test_damage_names_the_window_and_spoils_nothing_else(slide):
    data = slide.read_bytes()
    with open_image(slide) as reader:
        whole = reader.read(Window.of(reader.size))
    # The last tiles, of noise and so stored one after the other, are no LZW any more.
    middle = len(data) * 2 // 3
    slide.write_bytes(data[:middle] + b"\xff" * 4000 + data[middle + 4000 :])
    with open_image(slide) as reader:
        with pytest.raises(ImageReadError, match=r"a\.svs at Window\(top=0, left=0, height=300"):
            reader.read(Window.of(reader.size))
        np.testing.assert_array_equal(reader.read(Window(0, 0, 60, 60)), whole[:, :60, :60])


def test_closed(slide):
    reader = open_image(slide)
    reader.close()
    with pytest.raises(ValueError, match="is closed"):
        reader.read(Window(0, 0, 5, 5))


def test_real_slide(real_data):
    """OpenSlide, and GDAL by another decoder, see the same."""
    pytest.importorskip("openslide")
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("no slide in FOVEATE_DATA")
    with open_image(path) as slide:
        assert (slide.size, slide.bands, slide.format) == (Size(2967, 2220), 3, "aperio")
        assert slide.resolution == Resolution(0.499e-6, 0.499e-6)
        window = Window(1000, 1100, 200, 300)
        found = slide.read(window).astype(int)
        assert found.std() > 10
    with RasterioReader(Address.of(path)) as other:
        assert other.resolution == Resolution(0.499e-6, 0.499e-6)
        assert np.abs(found - other.read(window)).max() <= 4


def test_a_slide_that_openslide_refuses_is_told(slide, caplog):
    data = slide.read_bytes()
    told = 0
    for share in (0.3, 0.6, 0.9, 0.99):
        slide.write_bytes(data[: int(share * len(data))])
        try:
            with open_image(slide) as reader:
                kind = type(reader).__name__
        except (ImageReadError, UnsupportedImageError) as error:
            assert "a.svs" in str(error)
            continue
        assert kind == "OpenSlideReader" or "a.svs" in caplog.text
        told += kind != "OpenSlideReader"
    slide.write_bytes(data)
    assert told or caplog.text == ""


def test_a_list_of_files_that_leads_out_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "a.vms"
    path.write_text("[Virtual Microscope Specimen]\nImageFile=../secret.jpg\n")
    with pytest.raises(UnsupportedImageError, match="refers to files outside the folder of the slide"):
        _check_names(path)
    path.write_text("[Virtual Microscope Specimen]\nImageFile=a(0,0).jpg\n")
    _check_names(path)
