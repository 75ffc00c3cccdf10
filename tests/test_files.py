import errno

import pytest

from foveate.errors import ImageReadError, OutputExistsError, OutputWriteError
from foveate.files import write_text, written


def test_an_existing_result_is_kept_unless_told(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_text(path, "two")
    assert path.read_text() == "one"
    write_text(path, "two", overwrite=True)
    assert path.read_text() == "two"


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
