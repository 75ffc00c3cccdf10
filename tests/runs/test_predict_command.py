"""`foveate predict` as a user meets it: interrupted, resumed, shared, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from typer.testing import CliRunner

from foveate import predict
from foveate.cli.app import app
from foveate.data.readers.pyramid import ImageReader
from foveate.data.readers.rasterio_reader import RasterioReader
from foveate.errors import ConfigError, ImageReadError, OutputExistsError, StoppedError
from foveate.geometry import Size
from foveate.inference import source as pixel_source
from foveate.inference.session import Session
from foveate.reporting.panels import Panel, panels_figure, screen_size
from foveate.runs import predict as predict_runs
from foveate.runs.folder import load_run
from foveate.runs.predict import PredictionRequest, files_of, shared_by, stem_of
from process_toys import children, runs, wait_for
from toys import make_data_set, shapes, toy_config, write_config, write_image

runner = CliRunner()
PLACE = Affine(0.5, 0, 100, 0, -0.5, 900)


def invoke(*arguments):
    return runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a trained run, two images, and their uninterrupted results."""
    root = tmp_path_factory.mktemp("predict-command")
    make_data_set(root / "toy")
    config = write_config(root / "toy.yaml", toy_config(root, steps=1, validate_every=1))
    assert invoke("train", config, "--out", root / "run").exit_code == 0
    for seed, name in enumerate(("one", "two")):
        write_image(root / f"{name}.tif", shapes(seed, 301, 222)[0], crs="EPSG:32633", transform=PLACE)
    done = invoke(
        "predict", root / "run", root / "one.tif", root / "two.tif", "--out", root / "whole", "--device", "cpu"
    )
    assert done.exit_code == 0, done.output
    return root


def results(folder, stems=("one", "two")):
    return [(folder / f"{stem}.{name}").read_bytes() for stem in stems for name in ("classes.tif", "fov.tif")]


def command(workspace, *arguments, launcher=("-m", "foveate.cli.app"), run="run", **options):
    words = [sys.executable, *launcher, "predict", workspace / run, *arguments]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    return subprocess.Popen(
        [str(word) for word in words],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def stop_after(count):
    left = [count]

    def should_stop():
        left[0] -= 1
        return left[0] <= 0

    return should_stop


def interrupted(workspace, out, blocks=3, image="one.tif"):
    with pytest.raises(StoppedError):
        predict(load_run(workspace / "run"), workspace / image, out, session=Session(should_stop=stop_after(blocks)))


def test_resuming_by_the_command_line_gives_the_same_bytes(workspace, tmp_path):
    interrupted(workspace, tmp_path)
    images = (workspace / "one.tif", workspace / "two.tif")
    refused = invoke("predict", workspace / "run", images[0], "--out", tmp_path, "--device", "cpu")
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    done = invoke("predict", workspace / "run", *images, "--out", tmp_path, "--device", "cpu", "--resume")
    assert done.exit_code == 0, done.output
    assert results(tmp_path) == results(workspace / "whole")
    assert json.loads((tmp_path / "one.json").read_text())["resumed_blocks"] == 3
    again = invoke("predict", workspace / "run", *images, "--out", tmp_path, "--device", "cpu", "--resume")
    assert again.exit_code == 0, again.output
    assert results(tmp_path) == results(workspace / "whole")


def test_resuming_with_another_option_says_which(workspace, tmp_path):
    interrupted(workspace, tmp_path)
    done = invoke(
        "predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu", "--resume",
        "--set", "inference.overlap=0.5",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "inference.overlap was 0.25, is now 0.5" in " ".join(done.output.split())


def test_resuming_an_image_that_changed_is_refused(workspace, tmp_path):
    shutil.copy(workspace / "one.tif", tmp_path / "moved.tif")
    run = load_run(workspace / "run")
    with pytest.raises(StoppedError):
        predict(run, tmp_path / "moved.tif", tmp_path / "out", session=Session(should_stop=stop_after(3)))
    (tmp_path / "elsewhere").mkdir()
    elsewhere = shutil.move(tmp_path / "moved.tif", tmp_path / "elsewhere" / "moved.tif")
    with pytest.raises(OutputExistsError):
        predict(run, elsewhere, tmp_path / "out")
    shutil.copy(workspace / "two.tif", elsewhere)
    with pytest.raises(ConfigError, match=r"image\.content was"):
        predict(run, elsewhere, tmp_path / "out", resume=True)
    shutil.copy(workspace / "one.tif", elsewhere)  # neither its place nor its date matters
    assert predict(run, elsewhere, tmp_path / "out", resume=True)["resumed_blocks"] == 3


def test_memory_makes_blocks_smaller_and_resuming_keeps_them(workspace, tmp_path):
    run, told = load_run(workspace / "run", overrides=["inference.block_size=4096", "inference.batch_size=256"]), []
    with pytest.raises(ConfigError, match="48 MiB of memory for each process is too little"):
        predict(run, workspace / "one.tif", tmp_path, session=Session(memory=48 << 20))
    wide = Session(on_start=told.append, should_stop=lambda: True)
    with pytest.raises(StoppedError):
        predict(run, workspace / "one.tif", tmp_path, session=wide)
    limit = told[0].memory.main - (20 << 20)
    narrow = Session(memory=limit, on_start=told.append, should_stop=lambda: True)
    with pytest.raises(StoppedError):
        predict(run, workspace / "one.tif", tmp_path, overwrite=True, session=narrow)
    assert told[1].memory.main <= limit
    assert told[1].block_size < 4096 or told[1].batch_size < 256
    predict(run, workspace / "one.tif", tmp_path, resume=True, session=Session(memory=1 << 40, on_start=told.append))
    assert (told[2].block_size, told[2].batch_size) == (told[1].block_size, told[1].batch_size)


def test_a_region_without_the_centre_of_a_pixel_is_told(workspace, tmp_path):
    corners = [[100.6, 100.6], [100.9, 100.6], [100.9, 100.9], [100.6, 100.6]]
    (tmp_path / "roi.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    done = invoke(
        "predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu",
        "--roi", tmp_path / "roi.geojson", "--roi-coordinates", "pixels",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "one: no pixel inside the region of interest is to be looked at" in done.output
    assert (open_raster(tmp_path / "one.classes.tif") == 255).all()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--budget", "0%", "give passes per megapixel"),
        ("--budget", "", "give passes per megapixel"),
        ("--outputs", "", "outputs"),
        ("--memory", "", "give a size such as 4GB"),
    ],
)
def test_options_without_a_meaning_are_refused(workspace, tmp_path, option, value, said):
    with pytest.raises(ConfigError, match=said):
        invoke("predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu", option, value)


def test_a_limit_that_an_interrupted_run_exceeds_is_told(workspace, tmp_path):
    interrupted(workspace, tmp_path)
    run, told = load_run(workspace / "run"), []
    predict(run, workspace / "one.tif", tmp_path, resume=True, session=Session(memory=48 << 20, tell=told.append))
    assert told == [
        "one: the interrupted run keeps its blocks and batches, which need more than the 48 MiB of --memory; "
        "--overwrite starts again with smaller ones"
    ]


def test_overwriting_leaves_nothing_of_an_earlier_run_and_says_so(workspace, tmp_path):
    asked = ("predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu", "--outputs")
    assert invoke(*asked, "classes,confidence,passes,polygons").exit_code == 0
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "one.confidence.tif.aux.xml").write_text("statistics of QGIS")
    (tmp_path / "one.txt").write_text("of someone else")
    (tmp_path / "one.json").unlink()
    (tmp_path / "one.classes.tif").unlink()
    assert "one.preview.png exists" in " ".join(invoke(*asked, "classes").output.split())
    (tmp_path / "one.preview.png").rename(tmp_path / "preview.png")
    assert "one.confidence.tif exists" in " ".join(invoke(*asked, "classes").output.split())
    (tmp_path / "preview.png").rename(tmp_path / "one.preview.png")
    done = invoke(*asked, "classes,confidence", "--overwrite")
    assert done.exit_code == 0, done.output
    gone = {"one.passes.tif", "one.polygons.geojson"}
    assert f"this one does not: {', '.join(sorted(gone))}" in " ".join(done.output.split())
    assert {path.name for path in tmp_path.iterdir()} == before - gone - {"one.preview.png"} | {"one.txt"}


def test_the_command_says_how_much_memory_it_needs(workspace, tmp_path):
    done = invoke("predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu")
    assert "at most about" in done.output
    assert "blocks of 64 px, 8 patches at a time" in done.output
    refused = invoke(
        "predict", workspace / "run", workspace / "one.tif", "--out", tmp_path / "no", "--device", "cpu",
        "--memory", "50MB",
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "too little" in refused.output
    assert not (tmp_path / "no").exists()


def test_a_part_that_cannot_be_read_is_left_empty_or_stops(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_source, "PAUSES", ())
    monkeypatch.setattr("foveate.inference.field.TILE_CELLS", 4)
    whole = ImageReader.read

    def torn(reader, window, size=None):
        if window.bottom > 290 and window.top > 200:
            raise ImageReadError(f"could not read {reader.path} at {window}")
        return whole(reader, window, size)

    monkeypatch.setattr(ImageReader, "read", torn)
    arguments = ("predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu")
    strict = invoke(*arguments, "--strict")
    assert strict.exit_code == 1
    assert "could not read" in strict.output
    monkeypatch.setattr("foveate.cli.predict._preview", lambda *arguments: None)
    done = invoke(*arguments, "--resume")
    assert done.exit_code == 3, done.output
    assert "a block stays empty" in done.output
    lost = (open_raster(tmp_path / "one.classes.tif") == 255).mean()
    assert f"{lost:.2%} of" in done.output
    assert "could not be read: " in done.output
    summary = json.loads((tmp_path / "one.json").read_text())
    assert summary["failed_blocks"]
    assert summary["resumed_blocks"] > 0


@pytest.mark.parametrize("how", [("--devices", "cpu:2"), ("--dask", "local", "--devices", "cpu:2")])
def test_what_there_is_to_note_of_a_run_is_said_once_whoever_helps(workspace, tmp_path, how):
    shutil.copytree(workspace / "run", tmp_path / "old")
    (tmp_path / "old/checkpoints/best.ckpt").unlink()
    file = tmp_path / "old/config.yaml"
    file.write_text(file.read_text().replace("training:\n", "training:\n  log_every: 5\n"))
    images = (workspace / "one.tif", workspace / "two.tif")
    process = command(tmp_path, *images, "--out", tmp_path / "out", *how, run="old")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("note: training.log_every is no longer a setting") == said.count("log_every") == 1
    assert said.count("best.ckpt, the best step of the training, is missing; last.ckpt is used") == 1
    assert said.count("best.ckpt") == 1
    assert "WARNING" not in said  # of workers that are slow to end


def test_a_run_without_validation_has_no_best_checkpoint_and_that_is_not_noted(workspace, tmp_path):
    config = toy_config(workspace, steps=1)
    config["data"]["split"] = {"train": ["a", "b", "c", "d"], "val": []}
    trained = invoke("train", write_config(tmp_path / "toy.yaml", config), "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()
    load_run(tmp_path / "run")  # a warning would be an error


def open_raster(path):
    with rasterio.open(path) as image:
        return image.read(1)


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_an_image_cut_short_so_that_nothing_can_be_read_fails(workspace, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(pixel_source, "PAUSES", ())
    whole = write_image(tmp_path / f"whole.{suffix}", shapes(0, 301, 222)[0])
    (tmp_path / f"cut.{suffix}").write_bytes(whole.read_bytes()[: 2000 if suffix == "tif" else 700])
    done = invoke(
        "predict", workspace / "run", tmp_path / f"cut.{suffix}", workspace / "one.tif", "--out", tmp_path / "out",
        "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 1, done.output
    assert f"cut.{suffix}" in done.output
    assert {path.name.split(".")[0] for path in (tmp_path / "out").glob("*.tif")} == {"one"}


@pytest.mark.parametrize("when", ["stopped", "done"])
def test_a_tile_that_was_changed_in_place_is_noticed_wherever_it_is(workspace, tmp_path, when):
    path, out, run = tmp_path / "big.tif", tmp_path / "out", load_run(workspace / "run")
    write_image(path, np.random.default_rng(0).integers(0, 255, (3, 1100, 1300), np.uint8))
    assert path.stat().st_size > 4_000_000
    small = load_run(workspace / "run", overrides=["inference.block_size=4096"]) if when == "done" else run
    if when == "stopped":
        with pytest.raises(StoppedError):
            predict(run, path, out, session=Session(should_stop=stop_after(2)))
    else:
        predict(small, path, out)
    data, times = bytearray(path.read_bytes()), path.stat()
    place = 5 * (len(data) - (1 << 16)) // 33 + (1 << 16) + 9000  # between two of the pieces that are looked at
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(255 - value for value in data[place : place + 3000]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ConfigError, match=r"big\.tif has changed since .*--overwrite"):
        predict(small, path, out, resume=True)
    path.write_bytes(data)
    assert predict(small, path, out, resume=True)["image_files"]["content"]


def test_an_image_that_changes_meanwhile_gives_no_result(workspace, tmp_path):
    path = tmp_path / "one.tif"
    shutil.copy(workspace / "one.tif", path)
    before, count = path.read_bytes(), []

    def change():
        count.append(0)
        if len(count) == 3:
            path.write_bytes(before[:-1] + b"x")
        return False

    with pytest.raises(ImageReadError, match="was changed or removed during the prediction"):
        predict(load_run(workspace / "run"), path, tmp_path / "out", session=Session(should_stop=change))
    assert not list((tmp_path / "out").glob("*.tif"))


@pytest.mark.parametrize("problem", [MemoryError("no room"), ValueError("[red]"), RuntimeError(), KeyError("a")])
def test_a_picture_that_fails_costs_no_result(workspace, tmp_path, monkeypatch, problem):
    def fail(*arguments, **options):
        raise problem

    monkeypatch.setattr("foveate.reporting.panels.save_panels", fail)
    done = invoke("predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "was not drawn" in done.output
    assert type(problem).__name__ in done.output
    assert results(tmp_path, ["one"]) == results(workspace / "whole", ["one"])


@pytest.mark.parametrize("problem", [MemoryError("no room"), ValueError("[/x]"), ZeroDivisionError()])
def test_an_image_that_fails_for_whatever_reason_does_not_stop_the_others(workspace, tmp_path, monkeypatch, problem):
    real = predict_runs.predict

    def fail(run, image, *arguments, **options):
        if "one" in str(image):
            raise problem
        return real(run, image, *arguments, **options)

    monkeypatch.setattr(predict_runs, "predict", fail)
    images = (workspace / "one.tif", workspace / "two.tif")
    done = invoke("predict", workspace / "run", *images, "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 1, done.output
    assert type(problem).__name__ in done.output
    assert results(tmp_path, ["two"]) == results(workspace / "whole", ["two"])


@pytest.mark.parametrize(("height", "width"), [(100, 6000), (6000, 100), (1, 100_000), (100_000, 1)])
def test_a_picture_has_a_largest_size_whatever_the_shape(height, width):
    shape = screen_size(Size(height, width), 1200)
    panels = [Panel("image", np.zeros((shape.height, shape.width, 3), np.uint8))] * 3
    wide, high = panels_figure(panels, []).get_size_inches() * 130
    assert max(wide, high) < 5000
    assert wide * high < 12e6


def test_more_outputs_are_asked_for_in_one_option(workspace, tmp_path):
    done = invoke(
        "predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu",
        "--outputs", "classes,confidence,probabilities",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.glob("*.tif")} == {
        "one.classes.tif", "one.confidence.tif", "one.probabilities.tif",
    }  # fmt: skip


def test_results_are_called_after_files_and_urls(tmp_path):
    assert stem_of("https://example.org/data/scene.1.tif?token=a/b.c") == "scene.1"
    assert stem_of(tmp_path / "slide.svs") == "slide"
    assert files_of("s3://bucket/key/x.tif", tmp_path).classes == tmp_path / "x.classes.tif"
    with pytest.raises(ConfigError, match="several images are called x"):
        PredictionRequest(tmp_path, ("a/x.tif", "s3://b/x.tif"), tmp_path)


def waited_for(folder, count, process):
    """Wait until so many blocks are stored."""
    end = time.monotonic() + 240
    while len(list(folder.glob("blocks/*.block"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def large(workspace):
    """An image that takes a while."""
    rng = np.random.default_rng(0)
    return write_image(workspace / "large.tif", rng.integers(0, 255, (3, 900, 900), np.uint8), transform=PLACE)


@pytest.fixture(scope="module")
def large_whole(workspace, large):
    done = command(workspace, large, "--out", workspace / "large-whole", "--device", "cpu")
    _, said = done.communicate(timeout=600)
    assert done.returncode == 0, said
    return results(workspace / "large-whole", ["large"])


@pytest.mark.slow  # for the interpreters
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_block_and_says_how_to_go_on(workspace, large, large_whole, tmp_path, number, code):
    process = command(workspace, large, "--out", tmp_path, "--device", "cpu")
    waited_for(tmp_path / ".large.partial", 2, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "--resume" in said
    assert "to continue, run" in said
    assert not list(tmp_path.glob("*.tif"))
    resumed = command(workspace, large, "--out", tmp_path, "--device", "cpu", "--resume")
    _, said = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said
    assert results(tmp_path, ["large"]) == large_whole


@pytest.mark.slow  # for the interpreters
def test_two_runs_do_not_share_an_output_by_accident(workspace, large, tmp_path):
    process = command(workspace, large, "--out", tmp_path, "--device", "cpu")
    try:
        waited_for(tmp_path / ".large.partial", 1, process)
        for option in ("--resume", "--overwrite"):
            refused = invoke("predict", workspace / "run", large, "--out", tmp_path, "--device", "cpu", option)
            assert refused.exit_code == 2
            assert f"in use by process {process.pid}" in " ".join(refused.output.split())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow  # for the interpreters
def test_several_devices_and_torchrun_give_the_same_bytes(workspace, tmp_path):
    images = (workspace / "one.tif", workspace / "two.tif")
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "foveate.cli.app")
    for name, options, launcher in (
        ("devices", ("--devices", "cpu:2"), ("-m", "foveate.cli.app")),
        ("torchrun", ("--device", "cpu"), torchrun),
    ):
        process = command(workspace, *images, "--out", tmp_path / name, *options, launcher=launcher)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert results(tmp_path / name) == results(workspace / "whole")
        assert not [path for path in (tmp_path / name).iterdir() if path.name.startswith(".")]


@pytest.mark.slow  # for the interpreters
def test_killed_with_its_processes_and_resumed_by_one(workspace, large, large_whole, tmp_path):
    process = command(workspace, large, "--out", tmp_path, "--devices", "cpu:2", start_new_session=True)
    waited_for(tmp_path / ".large.partial", 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("*.tif"))
    resumed = command(workspace, large, "--out", tmp_path, "--device", "cpu", "--resume")
    _, said = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said
    assert results(tmp_path, ["large"]) == large_whole


@pytest.mark.slow  # for the interpreters
@pytest.mark.parametrize("connected", [True, False])
def test_helpers_end_with_a_killed_leader_and_resuming_is_not_refused(
    workspace, large, large_whole, tmp_path, connected
):
    """Also one that has not connected yet, which takes it the time of its imports."""
    process = command(workspace, large, "--out", tmp_path, "--devices", "cpu:3")
    wait_for(lambda: len(helpers(process.pid)) == 2 or process.poll() is not None)
    if connected:
        waited_for(tmp_path / ".large.partial", 3, process)
    helping = helpers(process.pid)
    process.kill()
    process.communicate()
    for pid in helping:
        wait_for(lambda pid=pid: not runs(pid))
    resumed = command(workspace, large, "--out", tmp_path, "--device", "cpu", "--resume")
    _, said = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said
    assert results(tmp_path, ["large"]) == large_whole


def helpers(pid):
    """Without multiprocessing's tracker of resources, which ends by itself."""
    return [child for child in children(pid) if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_blocks_that_an_executor_works_on_give_the_same_bytes(workspace, tmp_path):
    run = load_run(workspace / "run")
    request = PredictionRequest(workspace / "run", (str(workspace / "one.tif"),), tmp_path)
    with ThreadPoolExecutor(1) as pool:
        session = Session(share=shared_by(pool, request, "cpu"))
        predict_runs.predict(run, workspace / "one.tif", tmp_path, session=session)
    assert results(tmp_path, ["one"]) == results(workspace / "whole", ["one"])


@pytest.mark.slow  # a cluster of its own
def test_the_workers_of_a_dask_cluster_give_the_same_bytes_though_one_is_killed(workspace, tmp_path):
    pytest.importorskip("distributed")
    where = tmp_path / "scheduler.json"
    programs = [["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard"]]
    programs += [["-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", "--no-dashboard"]] * 2
    cluster = [
        subprocess.Popen([sys.executable, *words, "--scheduler-file", str(where)], stderr=subprocess.DEVNULL)
        for words in programs
    ]
    try:
        wait_for(lambda: where.exists() and where.stat().st_size > 0)
        address = json.loads(where.read_text())["address"]
        images = [workspace / "one.tif", workspace / "two.tif"]
        process = command(workspace, *images, "--out", tmp_path / "out", "--device", "cpu", "--dask", address)
        waited_for(tmp_path / "out/.one.partial", 1, process)
        cluster[1].kill()
        _, said = process.communicate(timeout=300)
    finally:
        for one in cluster:
            one.kill()
            one.wait()
    assert process.returncode == 0, said
    assert results(tmp_path / "out") == results(workspace / "whole")


def test_the_run_is_not_changed_by_predicting(workspace):
    run = load_run(workspace / "run")
    before = {name: value.clone() for name, value in run.segmenter.state_dict().items()}
    with pytest.raises(OutputExistsError):
        predict(run, workspace / "one.tif", workspace / "whole")
    assert all(torch.equal(before[name], value) for name, value in run.segmenter.state_dict().items())


def test_few_modules_lie_between_the_command_and_the_first_pixel(workspace, tmp_path, monkeypatch):
    """Those that are at work, in any thread, while the first window of a block is read."""
    found, read = [], RasterioReader._read_level

    def watched(self, level, window):
        if not found and threading.current_thread() is not threading.main_thread():
            stacks = (traceback.walk_stack(frame) for frame in sys._current_frames().values())
            found.append({frame.f_globals["__name__"] for stack in stacks for frame, _ in stack})
        return read(self, level, window)

    monkeypatch.setattr(RasterioReader, "_read_level", watched)
    done = invoke("predict", workspace / "run", workspace / "one.tif", "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    between = {name for name in found[0] if name.startswith("foveate.")}
    assert {"foveate.cli.predict", "foveate.inference.source"} <= between
    assert len(between) <= 15, sorted(between)
