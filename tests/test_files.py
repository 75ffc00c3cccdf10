import errno
import os
from pathlib import Path

import pytest

from foveate.errors import ConfigError, ImageReadError, OutputExistsError, OutputWriteError
from foveate.files import checksum, files_in, refuse_existing, write_text, written


def test_an_existing_result_is_kept_unless_told(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_text(path, "two")
    assert path.read_text() == "one"
    write_text(path, "two", overwrite=True)
    assert path.read_text() == "two"


def test_the_name_of_another_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.csv: the name of what is written here ends in \.json or \.geojson"):
        refuse_existing(tmp_path / "a.csv", overwrite=True, endings=[".json", ".geojson"])
    refuse_existing(tmp_path / "a.JSON", overwrite=False, endings=[".json", ".geojson"])


def test_a_folder_that_is_read_only_is_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # whoever runs this may write anywhere
    with pytest.raises(OutputWriteError, match=f"cannot write .*b.json: {tmp_path} is read only"):
        refuse_existing(tmp_path / "new" / "b.json", overwrite=True)
    (tmp_path / "new").mkdir()
    refuse_existing(tmp_path / "new" / "b.json", overwrite=True)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputWriteError),
        (ImageReadError("the source is damaged"), ImageReadError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_nothing_half_written_stands_under_the_name(tmp_path, error, seen):
    path = tmp_path / "deep" / "a.tif"
    with pytest.raises(seen), written(path) as partial:
        partial.write_text("half")
        raise error
    assert list(path.parent.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_result(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputWriteError, match="No space"), written(path, overwrite=True) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with written(tmp_path / "a.tif") as partial:
        assert partial.suffix == ".tif"
        partial.touch()
    assert (tmp_path / "a.tif").exists()


def longest_name(folder, suffix):
    """One that may just be written."""
    most = os.pathconf(folder, "PC_NAME_MAX")
    for length in range(most, 0, -1):
        try:
            refuse_existing(folder / ("n" * length + suffix), overwrite=False)
        except OutputWriteError:
            continue
        return folder / ("n" * length + suffix)
    raise AssertionError


def test_what_is_not_refused_for_its_length_can_be_written(tmp_path):
    path = longest_name(tmp_path, ".json")
    assert len(path.name) > 200
    write_text(path, "{}")
    assert path.read_text() == "{}"


@pytest.mark.parametrize("name", ["n" * 256, "n" * 250, "\u00e4" * 128, "n" * 5000])
def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path, name):
    with pytest.raises(OutputWriteError, match=r"which is too long.*shorter name"):
        refuse_existing(tmp_path / name, overwrite=True)


def test_a_path_that_is_too_long_is_refused_too(tmp_path):
    for parts in (["folder"] * 600, ["f" * 300]):
        with pytest.raises(OutputWriteError, match="which is too long"):
            refuse_existing(tmp_path.joinpath(*parts, "n.json"), overwrite=False)


def test_a_checksum_is_of_names_and_contents(tmp_path):
    for where in ("a", "b"):
        (tmp_path / where / "sub").mkdir(parents=True)
        (tmp_path / where / "sub" / "1").write_bytes(b"one")
        (tmp_path / where / "2").write_bytes(b"two")
    one, two = (checksum(files_in(tmp_path / where), tmp_path / where) for where in ("a", "b"))
    assert one == two
    (tmp_path / "b" / "2").rename(tmp_path / "b" / "3")
    assert checksum(files_in(tmp_path / "b"), tmp_path / "b") != one
    assert checksum(files_in(tmp_path / "a"), tmp_path / "a", go_on=lambda: False) is None
    assert files_in(tmp_path / "nothing") == []


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), (tmp_path / "a.txt").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "x")
    (file, named), (folder, named_then) = synced
    assert (Path(file).parent, named) == (tmp_path, False)
    assert (Path(folder), named_then) == (tmp_path, True)


def test_where_nothing_can_be_removed_the_first_reason_is_said(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with (
        pytest.raises(OutputWriteError, match=r"could not write .*a\.txt: .*No space left"),
        written(tmp_path / "a.txt"),
    ):
        monkeypatch.setattr(Path, "unlink", refuse)
        raise OSError(errno.ENOSPC, "No space left on device")
