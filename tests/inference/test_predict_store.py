"""Blocks on disk: whole or not there, damage noticed, one leader at a time, claims of the dead taken over."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.config_base import differences
from foveate.devices import PeakMemory
from foveate.errors import (
    ConfigError,
    OutputExistsError,
    OutputInUseError,
    OutputWriteError,
    StoredBlockError,
)
from foveate.geometry import Size, Window
from foveate.inference.block import StoredBlock, load_block, save_block
from foveate.inference.session import Claims
from foveate.inference.store import BlockStore
from foveate.processes import is_held, locked
from foveate.tiff.tiles import Tiling

PLAN = {"image": {"size": [10, 20]}, "inference": {"overlap": 0.25}}


def block(seed=0, side=9, failure=""):
    rng = np.random.default_rng(seed)
    layers = {
        "classes": rng.integers(0, 4, (side, side), np.uint8),
        "probabilities": rng.integers(0, 255, (3, side, side), np.uint8),
        "foveation": rng.random((2, 2), np.float32),
    }
    layers["foveation"][0, 0] = np.nan
    return StoredBlock(Window(3, 4, side, side), layers, 7, PeakMemory(1.5, 0.0), failure)


def assert_same(one, two):
    assert one._replace(layers={}) == two._replace(layers={})
    assert one.layers.keys() == two.layers.keys()
    for name, values in one.layers.items():
        assert values.dtype == two.layers[name].dtype
        np.testing.assert_array_equal(values, two.layers[name])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "1.block"
    save_block(path, block(), "plan", 1)
    return path.read_bytes()


def test_a_block_comes_back(tmp_path):
    save_block(tmp_path / "1.block", block(failure="a tile is torn"), "plan", 1)
    assert_same(load_block(tmp_path / "1.block", "plan", 1), block(failure="a tile is torn"))
    assert [path.name for path in tmp_path.iterdir()] == ["1.block"]


def test_tiles_come_back_as_they_were_cut(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (600, 700), np.uint8)
    tiles = Tiling(Size(1024, 2048), 1, True).cut(Window(0, 1024, 600, 700), values, 1)
    one = block()._replace(layers={"classes": tiles}, class_pixels=(1, 2))
    save_block(tmp_path / "1.block", one, "plan", 1)
    assert load_block(tmp_path / "1.block", "plan", 1) == one


def test_a_block_of_another_plan_is_refused(tmp_path):
    save_block(tmp_path / "1.block", block(), "plan", 1)
    with pytest.raises(StoredBlockError, match="another run"):
        load_block(tmp_path / "1.block", "another", 1)


def test_a_torn_block_is_noticed_wherever_it_ends(tmp_path, saved):
    path = tmp_path / "1.block"
    for length in range(len(saved)):
        path.write_bytes(saved[:length])
        with pytest.raises(StoredBlockError):
            load_block(path, "plan", 1)


@settings(max_examples=100)
@given(st.data())
def test_a_changed_byte_is_noticed(tmp_path_factory, saved, data):
    place, change = data.draw(st.integers(0, len(saved) - 1)), data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("changed") / "1.block"
    path.write_bytes(saved[:place] + bytes([saved[place] ^ change]) + saved[place + 1 :])
    with pytest.raises(StoredBlockError):
        load_block(path, "plan", 1)


def leading(path, plan=PLAN, total=4, *, resume=False, overwrite=False, tell=print):
    return BlockStore.leading(path, plan, total, resume=resume, overwrite=overwrite, tell=tell)


def test_what_is_stored_is_there_again_and_the_rest_is_missing(tmp_path):
    with leading(tmp_path / "store") as store:
        store.put(2, block(2))
        assert store.missing() == [0, 1, 3]
    with leading(tmp_path / "store", resume=True) as store:
        assert store.finished() == {2}
        assert_same(store.get(2), block(2))
        with pytest.raises(StoredBlockError, match="--resume"):
            store.get(0)
        store.remove()
    assert list(tmp_path.iterdir()) == []


def test_resuming_discards_what_is_torn_strange_or_could_not_be_read(tmp_path):
    with leading(tmp_path / "store") as store:
        for number in range(3):
            store.put(number, block(number, failure="unreadable" if number == 1 else ""))
    blocks = tmp_path / "store" / "blocks"
    torn = blocks / "00000002.block"
    torn.write_bytes(torn.read_bytes()[:-10])
    (blocks / "00000003.block.1234.new").write_bytes(b"half")
    (blocks / "00000099.block").write_bytes((blocks / "00000000.block").read_bytes())
    told = []
    with leading(tmp_path / "store", resume=True, tell=told.append) as store:
        assert store.missing() == [1, 2, 3]
        assert "00000002.block is incomplete or damaged" in told[0]
        assert "and 1 more" in told[0]
        assert [path.name for path in blocks.iterdir()] == ["00000000.block"]


STRANGE = (
    "0000001 (copy).block", "00000001 .block", "0000_001.block", "1.block", "000000001.block", "00000001.BLOCK",
    "\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661.block", "00000001", "block", "00000099.block",
)  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_no_block_is_called_is_neither_used_nor_a_dead_end(tmp_path, name):
    told = []
    with leading(tmp_path / "store") as store:
        store.put(0, block(0))
        (store.path / "blocks" / name).write_bytes((store.path / "blocks" / "00000000.block").read_bytes())
        assert store.missing() == [1, 2, 3]
    with leading(tmp_path / "store", resume=True, tell=told.append) as store:
        assert store.missing() == [1, 2, 3]
        assert [path.name for path in (store.path / "blocks").iterdir()] == ["00000000.block"]
    assert len(told) == 1
    assert name in told[0]
    assert "computed again" in told[0]


@pytest.mark.parametrize("copied", [True, False])
def test_a_block_copied_over_another_or_swapped_is_noticed(tmp_path, copied):
    told = []
    with leading(tmp_path / "store") as store:
        for number in range(3):
            store.put(number, block(number))
        one, two = (store.path / "blocks" / f"0000000{number}.block" for number in (1, 2))
        first, second = one.read_bytes(), two.read_bytes()
        two.write_bytes(first)
        if not copied:
            one.write_bytes(second)
        with pytest.raises(StoredBlockError, match=r"holds block 1, not block 2.*--resume"):
            store.get(2)
    with leading(tmp_path / "store", resume=True, tell=told.append) as store:
        assert store.missing() == ([2, 3] if copied else [1, 2, 3])
    assert len(told) == 1


def test_a_folder_among_the_blocks_is_removed(tmp_path):
    with leading(tmp_path / "store") as store:
        store.put(0, block(0))
        (store.path / "blocks" / "00000001.block").mkdir()
    with leading(tmp_path / "store", resume=True) as store:
        assert store.missing() == [1, 2, 3]


def test_a_store_is_neither_overwritten_nor_mixed(tmp_path):
    with leading(tmp_path / "store") as store:
        store.put(0, block())
    with pytest.raises(OutputExistsError, match=r"1 of 4 .* --resume .* --overwrite"), leading(tmp_path / "store"):
        pass
    changed = {**PLAN, "inference": {"overlap": 0.5}}
    with (
        pytest.raises(ConfigError, match=r"inference\.overlap was 0\.25, is now 0\.5; .*--overwrite"),
        leading(tmp_path / "store", changed, resume=True),
    ):
        pass
    with pytest.raises(ConfigError, match=r"image\.size was .10, 20., is now .10, 21."):
        BlockStore.joining(tmp_path / "store", {**PLAN, "image": {"size": [10, 21]}}, 4)
    with leading(tmp_path / "store", changed, overwrite=True) as store:
        assert store.missing() == [0, 1, 2, 3]


def test_a_store_without_a_block_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), leading(tmp_path / "store"):
        raise RuntimeError("the budget is too low")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputWriteError, match=r"cannot write to .*file.*--out"), leading(tmp_path / "file" / "store"):
        pass


def test_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with leading(tmp_path / "store") as store:
        store.put(0, block())
        monkeypatch.setattr("foveate.inference.block.os.fsync", full)
        with pytest.raises(OutputWriteError, match=r"disk is full; 1 of 4 blocks .*: free some space .*--resume"):
            store.put(1, block())
        assert [path.name for path in (tmp_path / "store" / "blocks").iterdir()] == ["00000000.block"]


def test_a_block_that_cannot_be_claimed_on_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with leading(tmp_path / "store") as store, monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.open", full)
        with pytest.raises(OutputWriteError, match=r"disk is full; 0 of 4 blocks .*: free some space .*--resume"):
            list(Claims(store).take([0]))


def test_a_late_block_does_not_bring_a_removed_store_back(tmp_path):
    with leading(tmp_path / "store") as store:
        store.remove()
        store.put(0, block())
        assert store.missing() == []
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys, time
from pathlib import Path
from foveate.inference.session import Claims
from foveate.inference.store import BlockStore
path, mode = Path(sys.argv[1]), sys.argv[2]
plan = {"image": {"size": [10, 20]}, "inference": {"overlap": 0.25}}
if mode == "leads":
    context = BlockStore.leading(path, plan, 4, resume=False, overwrite=False)
    context.__enter__()
else:
    claims = Claims(BlockStore.joining(path, plan, 4))
    context = claims.alive()
    context.__enter__()
    print(list(claims.take([1, 2])))
print("ready", flush=True)
time.sleep(600)
"""


def holder(path, mode):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), mode], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    lines = []
    while not lines or lines[-1] != "ready":
        lines.append(process.stdout.readline().strip())
        assert lines[-1], "the process ended"
    return process, lines[:-1]


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_one_process_leads_at_a_time_and_a_dead_one_does_not_block(tmp_path):
    first, _ = holder(tmp_path / "store", "leads")
    try:
        with pytest.raises(OutputInUseError, match=rf"in use by process {first.pid} on "), leading(tmp_path / "store"):
            pass
    finally:
        killed(first)
    with leading(tmp_path / "store") as store:
        assert store.missing() == [0, 1, 2, 3]


def test_claims_of_the_living_are_left_and_those_of_the_dead_taken_over(tmp_path):
    with leading(tmp_path / "store") as store:
        other, said = holder(tmp_path / "store", "claims")
        try:
            assert said == ["[1, 2]"]
            mine = Claims(store)
            with mine.alive():
                assert list(mine.take(range(4))) == [0, 3]
                assert list(mine.take(range(4))) == []
                store.put(2, block())  # the other one stored it before it died
                killed(other)
                assert list(mine.take(range(4))) == [1]
                mine.give_back(0)
                assert list(mine.take(range(4))) == [0]
        finally:
            killed(other)


def test_a_claim_without_a_name_is_of_a_dead_one(tmp_path):
    with leading(tmp_path / "store") as store:
        (store.path / "claims" / "00000001").touch()
        assert list(Claims(store).take([1])) == [1]


def test_numbers_are_claimed_only_when_asked_for(tmp_path):
    with leading(tmp_path / "store") as store:
        one, two = Claims(store), Claims(store)
        with one.alive(), two.alive():
            first, second = one.take(range(4)), two.take(range(4))
            assert [next(first), next(second), next(first), next(second)] == [0, 1, 2, 3]


def test_a_lock_is_held_by_one(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    with locked(path):
        assert is_held(path)
        assert json.loads(path.read_bytes())["pid"] == os.getpid()
        with pytest.raises(OutputInUseError), locked(path):
            pass
        path.unlink()
        with locked(path):  # the old one is of no name any more
            pass
    assert not is_held(path)


def test_without_locks_the_noted_process_is_looked_for(tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    path, soft = tmp_path / "lock", tmp_path / "lock.soft"
    with locked(path):
        assert is_held(path)
        _, host, *_ = soft.read_text().splitlines()
        with pytest.raises(OutputInUseError, match=f"in use by process {os.getpid()} on {host}"), locked(path):
            pass
    assert list(tmp_path.iterdir()) == []
    dead = subprocess.Popen(["true"])
    dead.wait()
    path.touch()
    for owner, where, held in ((os.getppid(), host, True), (dead.pid, host, False), (dead.pid, "elsewhere", True)):
        soft.write_text(f"{owner}\n{where}\n")
        assert is_held(path) == held
        soft.unlink(missing_ok=True)


def test_differences_name_every_value():
    before = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": 0}
    now = {"a": 1, "b": {"c": [1, 3], "d": "x", "new": None}}
    assert [line for _, line in differences(before, now)] == [
        "b.c was [1, 2], is now [1, 3]",
        "b.new was not given, is now None",
        "gone was 0, is now not given",
    ]
    assert [line for _, line in differences(now, now)] == []


def test_the_files_of_a_store_are_where_they_are_said_to_be(tmp_path):
    with leading(tmp_path / "store") as store:
        store.put(3, block())
        found = {str(path.relative_to(store.path)) for path in Path(store.path).rglob("*") if path.is_file()}
    assert found == {"lock", "plan.json", "blocks/00000003.block"}
