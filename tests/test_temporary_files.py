import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foveate import files
from foveate.errors import OutputWriteError
from foveate.files import TemporaryFolder

HOLDER = """
import sys, time
from pathlib import Path
from foveate.files import TemporaryFolder
folder = TemporaryFolder()
Path(folder.name, "pixels").write_bytes(bytes(1000))
print(folder.name, flush=True)
time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(files, "_SECONDS", 0.0)
    return tmp_path


def test_it_is_deleted_when_closed_and_when_no_longer_used(place):
    folder = TemporaryFolder()
    assert Path(folder.name).parent == place
    folder.cleanup()
    folder.cleanup()
    TemporaryFolder()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_deleted_by_the_next_and_nothing_else(place):
    (place / "foveate-own").mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        left = process.stdout.readline().strip()
        TemporaryFolder().cleanup()
        assert Path(left, "pixels").exists(), "its owner lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.05)
    TemporaryFolder().cleanup()
    assert [path.name for path in place.iterdir()] == ["foveate-own"]


def test_more_than_is_free_is_refused(place):
    with pytest.raises(
        OutputWriteError, match=r"decoding a\.png needs up to 1024\.0 GiB.* free; make room, or set .* TMPDIR"
    ):
        TemporaryFolder(1 << 40, "decoding a.png")
