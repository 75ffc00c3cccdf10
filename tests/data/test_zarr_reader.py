import json
import multiprocessing
import os
import shutil
import zipfile

import numpy as np
import pytest
from data_toys import smooth_image
from reader_toys import write_ome_zarr, write_zarr

from foveate.data.readers import Resolution, open_image, zarr_reader
from foveate.errors import ImageReadError, UnsupportedImageError
from foveate.geometry import Size, Window

zarr = pytest.importorskip("zarr")
zarr_store = pytest.importorskip("foveate.data.readers.zarr_reader")
PIXELS = smooth_image(3, 130, 150, np.uint8)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("unit", "metres"), [("micrometer", 1e-6), ("nanometer", 1e-9), ("parsec", None)])
def test_resolution(tmp_path, version, unit, metres):
    write_ome_zarr(tmp_path / "a.zarr", [PIXELS, PIXELS[:, ::2, ::2]], version=version, scale=0.25, unit=unit)
    with open_image(tmp_path / "a.zarr") as reader:
        assert reader.format == "OME-Zarr"
        assert reader.levels == (Size(130, 150), Size(65, 75))
        assert reader.resolution == (None if metres is None else Resolution(0.25 * metres, 0.25 * metres))


def test_an_array_within_a_group(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", [PIXELS, PIXELS[:, ::2, ::2]])
    with open_image(tmp_path / "a.zarr" / "1") as reader:
        np.testing.assert_array_equal(reader.read(Window(5, 6, 7, 8)), PIXELS[:, ::2, ::2][:, 5:12, 6:14])


def test_what_bioformats2raw_writes(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(tmp_path / "a.zarr" / "0", [PIXELS])
    with open_image(tmp_path / "a.zarr") as reader:
        np.testing.assert_array_equal(reader.read(Window.of(reader.size)), PIXELS)


def test_another_axis_must_have_length_1(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(4, 3, 40, 50), dtype="u1", dimension_names=["z", "c", "y", "x"]
    )
    array[:] = 1
    with pytest.raises(UnsupportedImageError, match=r"a\.zarr holds several planes, 4 along z"):
        open_image(tmp_path / "a.zarr")


def test_names_of_axes_come_before_guesses(tmp_path):
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(50, 3, 40), dtype="u1", dimension_names=["x", "c", "y"])
    values = np.random.default_rng(0).integers(0, 255, (50, 3, 40), dtype=np.uint8)
    array[:] = values
    with open_image(tmp_path / "a.zarr") as reader:
        np.testing.assert_array_equal(reader.read(Window(1, 2, 30, 20)), values[2:22, :, 1:31].transpose(1, 2, 0))


def test_a_group_of_arrays_is_a_pyramid_or_names_them(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name, part in (("fine", PIXELS), ("coarse", PIXELS[:, ::2, ::2])):
        group.create_array(name, data=part)
    with open_image(tmp_path / "a.zarr") as reader:
        assert reader.levels == (Size(130, 150), Size(65, 75))
    group.create_array("other", data=PIXELS[:, :40])
    with pytest.raises(
        UnsupportedImageError, match=r"do not form a pyramid: fine, other, coarse; open one of them: .*a\.zarr/fine"
    ):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("change", [{"datasets": [{"path": "9"}]}, {"datasets": []}, {"datasets": None}, {"axes": [1]}])
def test_wrong_metadata(tmp_path, change):
    write_ome_zarr(tmp_path / "a.zarr", [PIXELS])
    path = tmp_path / "a.zarr" / ".zattrs"
    attributes = json.loads(path.read_text())
    attributes["multiscales"][0] |= change
    path.write_text(json.dumps(attributes))
    with pytest.raises(UnsupportedImageError, match=r"a\.zarr"):
        open_image(tmp_path / "a.zarr")


def test_a_damaged_chunk_does_not_spoil_the_others(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", PIXELS)
    chunk = path / "c" / "0" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with open_image(path) as reader:
        reader.read(Window(0, 0, 64, 64))
        with pytest.raises(ImageReadError, match=r"a\.zarr at Window\(top=70"):
            reader.read(Window(70, 70, 9, 9))
        reader.read(Window(0, 0, 64, 64))


def test_chunks_of_gigabytes_are_refused(tmp_path):
    shape = (60_000, 60_000)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=shape, chunks=shape, dtype="u1")
    with pytest.raises(UnsupportedImageError, match="chunks of"):
        open_image(tmp_path / "a.zarr")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UnsupportedImageError, match="Tried zarr"):
        open_image(tmp_path)


def _read_in_child(path, results):
    with open_image(path) as reader:
        results.put(int(reader.read(Window(0, 0, 30, 30)).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(tmp_path):
    """Zarr reads in a thread, which a forked worker does not have."""
    path = write_zarr(tmp_path / "a.zarr", PIXELS)
    with open_image(path) as reader:
        expected = int(reader.read(Window(0, 0, 30, 30)).sum())
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_read_in_child, args=(path, results))
    child.start()
    assert results.get(timeout=60) == expected
    child.join(60)


@pytest.mark.parametrize("version", [2, 3])
def test_an_array_that_goes_away_is_told_from_one_that_is_sparse(tmp_path, version):
    pixels = smooth_image(1, 128, 128, np.uint8)
    path = write_zarr(tmp_path / "a.zarr", pixels, version)
    first = next(
        file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith((".z", "zarr"))
    )
    first.unlink()
    with open_image(path) as reader:
        found = reader.read(Window(0, 0, 64, 64))
        assert not found.any(), "a chunk that is not stored holds the fill value"
        reader._store._seen.clear()
        shutil.rmtree(path)
        with pytest.raises(
            ImageReadError, match=r"a\.zarr at .*: the chunk .* and the metadata of its array have disappeared"
        ):
            reader.read(Window(64, 64, 64, 64))


def test_a_missing_chunk_of_an_array_without_a_fill_value_is_an_error(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", smooth_image(1, 128, 128, np.uint8), 2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"fill_value": None}))
    (path / "0.0.0").unlink()
    with open_image(path) as reader:
        assert reader.read(Window(64, 64, 64, 64)).any()
        with pytest.raises(ImageReadError, match=r"the chunk 0\.0\.0 is missing, and the array has no fill value"):
            reader.read(Window(0, 0, 64, 64))


CODECS = {
    "blosc": {"id": "blosc", "cname": "lz4", "clevel": 1, "shuffle": 0},
    "gzip": {"id": "gzip", "level": 9},
    "zlib": {"id": "zlib", "level": 9},
    "zstd": {"id": "zstd", "level": 1},
    "lz4": {"id": "lz4", "acceleration": 1},
}


def packed(codec, size):
    numcodecs = pytest.importorskip("numcodecs")
    return numcodecs.get_codec(CODECS[codec]).encode(np.zeros(size, np.uint8))


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_that_unpacks_to_more_than_a_chunk_is_refused_before(tmp_path, codec, monkeypatch):
    monkeypatch.setattr(zarr_store, "MOST_CHUNK_BYTES", 1 << 20)
    path = write_zarr(tmp_path / "a.zarr", smooth_image(1, 128, 128, np.uint8), 2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"compressor": CODECS[codec]}))
    (path / "0.0.0").write_bytes(packed(codec, 64 * 64))
    (path / "0.0.1").write_bytes(packed(codec, 30 << 20))
    with open_image(path) as reader:
        assert not reader.read(Window(0, 0, 64, 64)).any()
        with pytest.raises(ImageReadError, match=r"0\.0\.1 in it is damaged: it .* larger than a chunk"):
            reader.read(Window(0, 64, 64, 64))


@pytest.mark.parametrize("length", [0, 10, 16, 100, 3000])
def test_a_blosc_chunk_that_is_cut_short_is_refused(tmp_path, length):
    path = write_zarr(tmp_path / "a.zarr", np.random.default_rng(0).integers(0, 255, (1, 128, 128), np.uint8), 2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"compressor": CODECS["blosc"]}))
    noise = np.random.default_rng(0).integers(0, 255, 64 * 64).astype(np.uint8)
    whole = pytest.importorskip("numcodecs").get_codec(CODECS["blosc"]).encode(noise)
    (path / "0.0.0").write_bytes(whole[:length])
    with open_image(path) as reader, pytest.raises(ImageReadError, match=r"0\.0\.0 in it is damaged: it has \d+ bytes"):
        reader.read(Window(0, 0, 64, 64))


def test_chunks_too_large_to_be_read_whole_are_refused(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", smooth_image(1, 128, 128, np.uint8), 2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"chunks": [1, 40_000, 40_000], "shape": [1, 50_000, 50_000]}))
    with pytest.raises(UnsupportedImageError, match=r"1526 MiB each.*at most 512 MiB are allowed"):
        open_image(path)


def test_an_empty_metadata_file_is_said(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", smooth_image(1, 128, 128, np.uint8), 2)
    (path / ".zarray").write_text("")
    with pytest.raises(UnsupportedImageError, match=r"Zarr cannot open .*a\.zarr"):
        open_image(path)


def test_a_zip_whose_parts_are_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_reader, "MOST_PART_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(".zarray", bytes(20 << 20))
    with pytest.raises(UnsupportedImageError, match="holds a file of 20 MiB; at most 1 MiB are allowed"):
        open_image(tmp_path / "a.zip")
