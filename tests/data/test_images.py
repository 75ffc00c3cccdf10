"""Images and masks at `data.pixel_size`, and the readers that are kept open."""

import os
import pickle

import numpy as np
import pytest
from data_toys import data_config, smooth_image, write

from foveate.data.checks import inspect_samples
from foveate.data.images import ReaderCache, SampleReader, open_labels, open_sample, open_working
from foveate.data.locations import LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.readers.gdal import open_dataset
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import Size, Window
from foveate.patches import ScaleSet

BYTES = 40 * 50 * 3 * 4 // 3


def with_resolution(path, micrometres):
    with open_dataset(path, "r+") as file:
        per_cm = 1e4 / micrometres
        file.update_tags(TIFFTAG_RESOLUTIONUNIT="3", TIFFTAG_XRESOLUTION=per_cm, TIFFTAG_YRESOLUTION=per_cm)
    return path


@pytest.fixture
def two_scans(tmp_path):
    """One scene at 0.25 and at 0.5 micrometres per pixel, and their masks."""
    fine = smooth_image(3, 240, 320, np.uint8)
    mask = (np.add.outer(np.arange(240) // 16, np.arange(320) // 16) % 2).astype(np.uint8)[None]
    half = fine.reshape(3, 120, 2, 160, 2).mean((2, 4)).round().astype(np.uint8)
    for name, image, labels, side in (("fine", fine, mask, 0.25), ("half", half, mask[:, ::2, ::2], 0.5)):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        with_resolution(write(tmp_path / "images" / f"{name}.tif", image, driver="GTiff"), side)
        write(tmp_path / "masks" / f"{name}.png", labels, driver="PNG")
    return tmp_path


def test_scans_of_any_magnification_are_read_alike(two_scans):
    config = data_config(two_scans, pixel_size="0.5 um")
    samples = load_samples(config)
    assert tuple(f.size for f in inspect_samples(samples, config).values()) == (Size(120, 160), Size(120, 160))
    spec = LocationSpec(ScaleSet(16, [16, 64]), 8, 2, (0, 1), window_labels=True)
    reader = SampleReader(config, spec)
    fine, half = (reader.read(sample, [(3, 4), (0, 19)]) for sample in samples)
    for a, b in zip(fine, half, strict=True):
        for name in ("overview", "patches"):
            assert (getattr(a, name).int() - getattr(b, name).int()).abs().max() <= 1
        np.testing.assert_array_equal(a.label, b.label)
        np.testing.assert_array_equal(a.window_labels, b.window_labels)


def test_without_a_pixel_size_nothing_changes(two_scans):
    config = data_config(two_scans)
    assert tuple(f.size for f in inspect_samples(load_samples(config), config).values()) == (
        Size(240, 320),
        Size(120, 160),
    )


def test_a_mask_of_its_own_pixel_size(two_scans):
    mask = np.ones((1, 60, 80), np.uint8)
    (two_scans / "masks" / "fine.png").unlink()
    with_resolution(write(two_scans / "masks" / "fine.tif", mask, driver="GTiff"), 1.0)
    config = data_config(two_scans, pixel_size="0.5 um")
    with open_labels(load_samples(config)[0], config) as labels:
        assert labels.size == Size(120, 160)
        assert (labels.read(Window.of(labels.size)) == 1).all()
    with_resolution(two_scans / "masks" / "fine.tif", 2.0)
    with pytest.raises(DatasetError, match=r"fine\.tif is 120 x 160 pixels and its mask .*fine\.tif is 240 x 320"):
        inspect_samples(load_samples(config), config)


def test_an_unknown_resolution_is_named_or_assumed_or_given(tmp_path):
    write(tmp_path / "a.png", smooth_image(3, 40, 60, np.uint8), driver="PNG")
    write(tmp_path / "mask.png", np.zeros((1, 40, 60), np.uint8), driver="PNG")
    with pytest.raises(DatasetError, match=r"a\.png has no pixel size.*assumed_pixel_size"):
        open_working(tmp_path / "a.png", data_config(tmp_path, pixel_size="1 um"))
    assumed = data_config(tmp_path, pixel_size="1 um", assumed_pixel_size="0.5 um")
    with open_working(tmp_path / "a.png", assumed) as reader:
        assert reader.size == Size(20, 30)
        assert reader.resolution.row == pytest.approx(1e-6)
    (tmp_path / "files.csv").write_text("image,mask,pixel_size\na.png,mask.png,2 um\n")
    given = data_config(tmp_path, pixel_size="1 um", manifest="files.csv", assumed_pixel_size="0.5 um")
    (sample,) = load_samples(given)
    with open_sample(sample, given) as reader, open_labels(sample, given) as labels:
        assert reader.size == labels.size == Size(80, 120)
    (tmp_path / "files.csv").write_text("image,mask,pixel_size\na.png,mask.png,2 feet\n")
    with pytest.raises(DatasetError, match=r"entry 1: pixel_size '2 feet' is not a length"):
        load_samples(given)


@pytest.mark.parametrize("value", ["0.5", "um", "-1 um", "0 um", "1 inch", ""])
def test_pixel_size_is_a_length(tmp_path, value):
    with pytest.raises(ConfigError, match=r"pixel_size: .* is not a length"):
        data_config(tmp_path, pixel_size=value)


def test_images_of_a_manifest_may_be_urls(tmp_path):
    (tmp_path / "files.csv").write_text("image,mask\nhttps://example.org/x/a.tif?k=1,https://example.org/x/b.png\n")
    (sample,) = load_samples(data_config(tmp_path, manifest="files.csv"))
    assert sample.name == "a"


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path / f"{i}.png", smooth_image(3, 40, 50, np.uint8), driver="PNG") for i in range(4)]


def test_keeps_the_last_used_within_its_bytes(paths):
    cache = ReaderCache(max_bytes=2 * BYTES)
    first, second = cache.get(paths[0]), cache.get(paths[1])
    assert cache.get(paths[0]) is first
    cache.get(paths[2])
    assert cache.get(paths[0]) is first
    assert cache.get(paths[1]) is not second
    assert second._store is None
    cache.close()


def test_bounds_the_number(paths):
    cache = ReaderCache(max_bytes=10**9, max_open=2)
    first = cache.get(paths[0])
    for path in paths[1:]:
        cache.get(path)
    assert cache.get(paths[0]) is not first


def test_keeps_the_one_in_use_however_large(paths):
    cache = ReaderCache(max_bytes=0)
    assert cache.get(paths[0]) is cache.get(paths[0])


def test_is_empty_in_another_process(paths, monkeypatch):
    cache = ReaderCache(max_bytes=10**9)
    reader = cache.get(paths[0])
    reader.read(Window(0, 0, 4, 4))
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get(paths[0]) is not reader
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert cache.get(paths[0]) is not reader
