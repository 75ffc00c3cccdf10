"""A prediction cannot be lost: the same bytes after kills, by several processes, and a word about what went wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from predict_toys import (
    AREA,
    CONFIG,
    RESULTS,
    all_stored,
    final_bytes,
    raster,
    toy_pixels,
    toy_prediction,
    toy_segmenter,
    toy_source,
)
from rasterio.env import get_gdal_config

from foveate.errors import (
    ConfigError,
    OutputExistsError,
    OutputWriteError,
    StoppedError,
    StoredBlockError,
)
from foveate.geometry import Window
from foveate.inference.assemble import PredictionFiles
from foveate.inference.pipeline import finished_blocks
from foveate.inference.session import Session
from foveate.inference.store import BlockStore
from foveate.inference.worker import Worker
from foveate.membership import Exclusive

pytestmark = pytest.mark.usefixtures("one_thread")
TOYS = str(Path(__file__).with_name("predict_toys.py"))


def script(folder, *mode, launcher=(), **environment):
    command = [sys.executable, *launcher, TOYS, str(folder), *map(str, mode)]
    paths = os.pathsep.join(sys.path)
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | environment
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=True)


@pytest.fixture(scope="module")
def whole(one_thread, tmp_path_factory):
    """The results of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    summary = toy_prediction(folder).run()
    assert summary["failed_blocks"] == []
    assert summary["resumed_blocks"] == 0
    return folder


def stop_after(count):
    left = [count]

    def should_stop():
        left[0] -= 1
        return left[0] <= 0

    return Session(should_stop=should_stop)


def test_few_decoded_tiles_are_kept_meanwhile(tmp_path):
    kept = []
    with rasterio.Env(GDAL_CACHEMAX=2**27):
        toy_prediction(tmp_path).run(on_pixels=lambda _: kept.append(get_gdal_config("GDAL_CACHEMAX")))
        assert set(kept) == {2**25}
        assert get_gdal_config("GDAL_CACHEMAX") == 2**27


def test_the_rasters_hold_what_the_blocks_hold(whole):
    prediction = toy_prediction(whole)
    image = prediction.source
    found = raster(whole / "toy.classes.tif")
    for done in finished_blocks(prediction.segmenter, image, prediction.config, blocks=prediction.grid):
        there = done.window.within(Window.of(image.size))
        assert np.array_equal(found[there], Exclusive().decided(done.logits).numpy())
    assert json.loads((whole / "toy.json").read_text())["class_pixels"] == {
        name: int((found == i).sum()) for i, name in enumerate("abcd")
    }
    views = raster(whole / "toy.fov.tif")
    assert views.shape == (19, 26)
    assert ((views >= 16) & (views <= 32)).all()


def test_nothing_but_results_is_left(whole):
    assert not [path for path in whole.iterdir() if path.name.startswith(".")]


def test_an_interrupted_run_is_gone_on_with(whole, tmp_path):
    done = []
    with pytest.raises(StoppedError, match="stopped with 5 of 35 blocks stored"):
        toy_prediction(tmp_path).run(stop_after(5))
    assert final_bytes_are_missing(tmp_path)
    with pytest.raises(OutputExistsError, match="--resume"):
        toy_prediction(tmp_path).run()
    summary = toy_prediction(tmp_path).run(resume=True, on_pixels=done.append)
    assert final_bytes(tmp_path) == final_bytes(whole)
    assert summary["resumed_blocks"] == 5
    assert done[0] == (4 * 32 + 22) * 32  # the first column
    assert sum(done) == 150 * 203
    uninterrupted = json.loads((whole / "toy.json").read_text())
    assert summary["passes"] == uninterrupted["passes"]
    assert summary["class_pixels"] == uninterrupted["class_pixels"]


def final_bytes_are_missing(folder):
    return [path.name for path in folder.iterdir()] == [".toy.partial"]


def test_overwriting_starts_anew(whole, tmp_path):
    with pytest.raises(StoppedError):
        toy_prediction(tmp_path).run(stop_after(5))
    assert toy_prediction(tmp_path).run(overwrite=True)["resumed_blocks"] == 0
    assert final_bytes(tmp_path) == final_bytes(whole)
    with pytest.raises(OutputExistsError):
        toy_prediction(tmp_path).run()


def test_a_stop_while_the_results_are_written_loses_nothing(whole, tmp_path):
    with pytest.raises(StoppedError, match="35 of 35"):
        toy_prediction(tmp_path).run(Session(should_stop=lambda: all_stored(tmp_path)))
    assert final_bytes_are_missing(tmp_path)
    assert toy_prediction(tmp_path).run(resume=True)["resumed_blocks"] == 35
    assert final_bytes(tmp_path) == final_bytes(whole)


def changed(what):
    if what == "weights":
        return {"model": toy_segmenter(seed=2)}
    if what == "layers":
        model = toy_segmenter()
        model.network.dilation = (2, 2)
        return {"model": model}
    if what == "content":
        return {"source": toy_source(toy_pixels(seed=3))}
    return {"config": CONFIG.model_copy(update=what)}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("weights", r"model\.weights was '\w+', is now '\w+'"),
        ("layers", r"model\.layers was"),
        ("content", r"image\.samples was '\w+', is now '\w+'"),
        ({"overlap": 0.5}, r"inference\.overlap was 0\.25, is now 0\.5"),
        ({"block_size": 64}, r"inference\.block_size was 32, is now 64"),
        ({"outputs": ("classes",)}, r"inference\.outputs was \['classes', 'confidence', 'foveation'\], is now"),
    ],
)
def test_only_the_same_run_is_gone_on_with(tmp_path, whole, what, said):
    with pytest.raises(StoppedError):
        toy_prediction(tmp_path).run(stop_after(2))
    with pytest.raises(ConfigError, match=rf"blocks of another run: {said}"):
        toy_prediction(tmp_path, **changed(what)).run(resume=True)
    with pytest.raises(ConfigError, match=rf"results in .*toy\.json belong to another run: {said}"):
        toy_prediction(whole, **changed(what)).run(resume=True)


def test_what_is_done_stays_as_it_is(whole):
    before = final_bytes(whole), (whole / "toy.json").read_text()
    assert toy_prediction(whole).run(resume=True) == json.loads(before[1])
    assert (final_bytes(whole), (whole / "toy.json").read_text()) == before


def test_a_finished_result_that_was_cut_short_changed_or_removed_is_not_done(whole, tmp_path):
    for name in RESULTS:
        copy = tmp_path / name
        shutil.copytree(whole, copy)
        data = (copy / f"toy.{name}").read_bytes()
        for there, said in (
            (data[:-1], f"has {len(data) - 1} bytes instead of {len(data)}"),
            (data[:-1] + bytes([data[-1] ^ 1]), "has changed since"),
            (None, "is missing"),
        ):
            (copy / f"toy.{name}").unlink()
            if there is not None:
                (copy / f"toy.{name}").write_bytes(there)
            with pytest.raises(ConfigError, match=rf"toy\.{name} {said}.*--overwrite"):
                toy_prediction(copy).run(resume=True)
            (copy / f"toy.{name}").write_bytes(data)
        assert toy_prediction(copy).run(resume=True)["resumed_blocks"] == 0


def test_a_summary_without_checksums_vouches_for_nothing(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    tree = json.loads((tmp_path / "toy.json").read_text())
    for files in (None, [], {}, {"toy.classes.tif": 3}):
        (tmp_path / "toy.json").write_text(json.dumps(tree | {"files": files}))
        with pytest.raises(ConfigError, match=r"toy\.classes\.tif (is not in the summary|has changed since)"):
            toy_prediction(tmp_path).run(resume=True)
    (tmp_path / "toy.json").write_text("[1]")
    with pytest.raises(ConfigError, match="cannot be read"):
        toy_prediction(tmp_path).run(resume=True)


def test_results_are_on_the_disk_before_their_blocks_are_removed(tmp_path, monkeypatch):
    synced, removed_after = set(), []
    fsync, remove = os.fsync, BlockStore.remove

    def noted(handle):
        synced.add(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(BlockStore, "remove", lambda store: removed_after.append(set(synced)) or remove(store))
    toy_prediction(tmp_path).run()
    assert {f"toy.{name}" for name in RESULTS} <= removed_after[0]
    assert any(name.startswith(".toy.partial-") and name.endswith(".json") for name in removed_after[0])
    assert tmp_path.name in removed_after[0]


def test_a_name_that_is_too_long_is_refused_before_the_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda *arguments: pytest.fail("a pass was made"))
    prediction = toy_prediction(tmp_path)
    prediction.files = PredictionFiles.in_folder(tmp_path, "n" * 238)
    for resume in (False, True):
        with pytest.raises(OutputWriteError, match="which is too long"):
            prediction.run(resume=resume)
    assert list(tmp_path.iterdir()) == []


def test_a_block_damaged_after_it_was_stored_is_made_anew(whole, tmp_path):
    with pytest.raises(StoppedError):
        toy_prediction(tmp_path).run(Session(should_stop=lambda: all_stored(tmp_path)))
    blocks = sorted((tmp_path / ".toy.partial/blocks").iterdir())

    def damage():
        blocks[7].write_bytes(blocks[7].read_bytes()[:-3])

    with pytest.raises(StoredBlockError, match="--resume"):
        toy_prediction(tmp_path).run(Session(should_stop=lambda: damage() or False), resume=True)
    assert toy_prediction(tmp_path).run(resume=True)["resumed_blocks"] == 34
    assert final_bytes(tmp_path) == final_bytes(whole)


@pytest.mark.slow  # many kills, at any moment
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_and_again_gives_the_same_bytes(whole, tmp_path, seed):
    kills = int(script(tmp_path, "killed", seed).stdout)
    assert kills > 3, kills
    assert final_bytes(tmp_path) == final_bytes(whole)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow  # for the interpreters
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_an_image(whole, tmp_path, processes):
    done = script(tmp_path, "together", processes)
    assert done.stdout.split() == [str(processes), "0"], done.stdout
    assert final_bytes(tmp_path) == final_bytes(whole)


@pytest.mark.slow  # for the interpreters
def test_processes_share_the_area_of_an_image(tmp_path):
    toy_prediction(tmp_path / "alone", area=AREA).run()
    done = script(tmp_path / "shared", "together", 2, "area")
    assert done.stdout.split() == ["2", "0"], done.stdout
    assert final_bytes(tmp_path / "shared") == final_bytes(tmp_path / "alone")


@pytest.mark.slow  # for the interpreters
def test_a_process_that_dies_is_replaced_by_the_others(whole, tmp_path):
    *told, last = script(tmp_path, "together", 3, "kill").stdout.splitlines()
    assert set(told) <= {"process 1 (cpu) ended with exit code -9; the others continue with its block"}
    assert last == "3 1"
    assert final_bytes(tmp_path) == final_bytes(whole)


@pytest.mark.slow  # for the interpreters
def test_processes_that_torchrun_starts_share_an_image(whole, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    done = script(tmp_path, "launched", launcher=launcher)
    assert sorted(done.stdout.split("\n")[:2]) == ["done 0", "done 1"]
    assert final_bytes(tmp_path) == final_bytes(whole)
