"""Whether an image still holds what it held: by the times of its files, and where these changed by all they hold."""

import json
import os

import pytest

from foveate.errors import ConfigError, ImageReadError
from foveate.inference.fingerprint import ImageFiles
from foveate.inference.job import _read_json


@pytest.fixture
def image(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "a.tif").write_bytes(bytes(range(256)) * 20)
    return tmp_path / "a.tif"


def noted(image):
    """What a life leaves for the next one, as that reads it."""
    note = image.parent / "store" / "image.json"
    with ImageFiles(image).noted(note):
        pass
    return _read_json(note)


def test_what_did_not_change_is_gone_on_with(image):
    known = noted(image)
    assert known["content"]
    ImageFiles(image).expect(known, "it was noted")


def test_another_date_is_no_change_but_other_bytes_are_even_with_the_same_date(image):
    known, times, data = noted(image), image.stat(), image.read_bytes()
    os.utime(image, ns=(0, 0))
    ImageFiles(image).expect(known, "it was noted")
    image.write_bytes(data[:-1] + b"x")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ConfigError, match=r"a\.tif has changed since it was noted.*--overwrite"):
        ImageFiles(image).expect(known, "it was noted")


def test_without_a_note_nothing_is_gone_on_with(image):
    for known in (None, [], {}, {"times": "x", "content": None}):
        with pytest.raises(ConfigError, match="has changed since"):
            ImageFiles(image).expect(known, "it was noted")


def test_a_changed_note_is_none(image):
    noted(image)
    note = image.parent / "store" / "image.json"
    tree = json.loads(note.read_text())
    note.write_text(json.dumps(tree | {"content": "0" * 64}))
    assert _read_json(note) is None


@pytest.mark.parametrize("change", ["bytes", "gone", "more"])
def test_a_folder_is_all_of_its_files(tmp_path, change):
    folder = tmp_path / "a.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "c" / "0").write_bytes(b"0123")
    (tmp_path / "store").mkdir()
    files = ImageFiles(folder)
    with files.noted(tmp_path / "store" / "image.json"):
        files.check()
    if change == "bytes":
        (folder / "c" / "0").write_bytes(b"0124")
    elif change == "gone":
        (folder / "c" / "0").unlink()
    else:
        (folder / "c" / "1").write_bytes(b"")
    with pytest.raises(ImageReadError, match="was changed or removed during the prediction"):
        files.check()
