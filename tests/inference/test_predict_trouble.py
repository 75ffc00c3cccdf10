"""What goes wrong costs what it must and no more: torn places, full devices, full disks."""

import numpy as np
import pytest
import torch
from predict_toys import (
    AREA,
    CONFIG,
    all_stored,
    final_bytes,
    raster,
    toy_pixels,
    toy_prediction,
    toy_segmenter,
    toy_source,
)
from torch import nn

from foveate.data.readers.array import ArrayReader
from foveate.errors import DeviceMemoryError, ImageReadError, NetworkError, OutputWriteError, StoppedError
from foveate.geometry import Size, Window
from foveate.inference import source as pixel_source
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks
from foveate.inference.plan import BlockGrid
from foveate.inference.session import Session

NOWHERE = Window(9000, 9000, 1, 1)


class Torn(ArrayReader):
    """A file with a torn place; reads of it fail, the first of them at any place `hiccups` times."""

    torn = Window(120, 60, 3, 3)
    hiccups = 0

    def read(self, window, size=None):
        if Torn.hiccups:
            Torn.hiccups -= 1
            raise ImageReadError("the network is down")
        if Torn.torn.intersection(window):
            raise ImageReadError(f"could not read torn.tif at {window}")
        return super().read(window, size)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(pixel_source, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("planner", ["per_target", "pyramid"])
def test_a_torn_place_costs_its_blocks_only(tmp_path, impatient, monkeypatch, planner):
    monkeypatch.setattr("foveate.inference.field.TILE_CELLS", 4)
    told, config = [], CONFIG.model_copy(update={"planner": planner})
    toy_prediction(tmp_path / "good", config=config).run()
    torn = toy_prediction(tmp_path / "torn", config=config, source=toy_source(reader=Torn))
    summary = torn.run(Session(tell=told.append))
    failed = [Window(*block["window"]) for block in summary["failed_blocks"]]
    assert any(block.contains(Torn.torn) for block in failed)
    assert 0 < len(failed) < 35
    assert len(told) == len(failed)
    assert all("could not read torn.tif" in text for text in told)
    assert all("could not read torn.tif" in block["reason"] for block in summary["failed_blocks"])
    for name in ("classes", "confidence"):
        expected, found = (raster(tmp_path / f"{which}/toy.{name}.tif") for which in ("good", "torn"))
        for block in failed:
            expected[block.within(Window(0, 0, 150, 203))] = 255
        assert np.array_equal(found, expected)
    assert sum(summary["class_pixels"].values()) == 150 * 203 - sum(block.size.pixels for block in failed)


def test_strict_stops_at_a_torn_place_and_keeps_what_is_done(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("foveate.inference.field.TILE_CELLS", 4)
    with pytest.raises(ImageReadError, match=r"could not read torn\.tif"):
        toy_prediction(tmp_path, source=toy_source(reader=Torn), strict=True).run()
    assert list((tmp_path / ".toy.partial/blocks").iterdir())


def test_what_fails_for_a_moment_is_read_again(tmp_path, impatient, monkeypatch):
    toy_prediction(tmp_path / "whole").run()
    monkeypatch.setattr(Torn, "torn", NOWHERE)
    prediction = toy_prediction(tmp_path, source=toy_source(reader=Torn), strict=True)
    monkeypatch.setattr(Torn, "hiccups", 2)
    prediction.run()
    assert final_bytes(tmp_path) == final_bytes(tmp_path / "whole")


def test_a_place_that_could_not_be_read_is_tried_again_on_resuming(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("foveate.inference.field.TILE_CELLS", 4)
    toy_prediction(tmp_path / "good").run()
    with pytest.raises(StoppedError, match="35 of 35"):
        toy_prediction(tmp_path, source=toy_source(reader=Torn)).run(Session(should_stop=lambda: all_stored(tmp_path)))
    assert 0 < toy_prediction(tmp_path).run(resume=True)["resumed_blocks"] < 35
    assert final_bytes(tmp_path) == final_bytes(tmp_path / "good")


class Gone(ArrayReader):
    """A file of which nothing can be read."""

    def read(self, window, size=None):
        raise ImageReadError(f"could not read gone.tif at {window}")


@pytest.mark.parametrize("planner", ["per_target", "pyramid"])
def test_nothing_readable_is_an_error_and_leaves_no_class_map(tmp_path, impatient, planner):
    config = CONFIG.model_copy(update={"planner": planner})
    with pytest.raises(ImageReadError, match=r"none of the 35 blocks could be read.*could not read gone\.tif"):
        toy_prediction(tmp_path, config=config, source=toy_source(reader=Gone)).run()
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    with pytest.raises(ImageReadError, match="none of the 35 blocks could be read, so no class map is written"):
        toy_prediction(tmp_path, config=config, source=toy_source(reader=Gone)).run(resume=True)


def test_nothing_readable_inside_an_area_is_an_error_too(tmp_path, impatient):
    with pytest.raises(ImageReadError, match=r"none of the \d+ blocks could be read"):
        toy_prediction(tmp_path, source=toy_source(reader=Gone), area=AREA).run()
    assert not list(tmp_path.glob("*.tif"))


def test_what_is_lost_is_told_as_a_share(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("foveate.inference.field.TILE_CELLS", 4)
    summary = toy_prediction(tmp_path, source=toy_source(reader=Torn)).run()
    lost = (raster(tmp_path / "toy.classes.tif") == 255).mean()
    assert 0 < lost < 1
    assert summary["share_unreadable"] == pytest.approx(lost)


class Small(nn.Conv2d):
    """A network on a device whose memory takes some patches at a time."""

    most = 1

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nMore about it.")
        return super().forward(x)


def test_a_full_device_gets_smaller_batches_and_that_is_said_once(tmp_path):
    told = []
    torch.manual_seed(1)
    network = Small(3, 4, 3, padding=1)
    summary = toy_prediction(tmp_path, model=toy_segmenter(network=network)).run(Session(tell=told.append))
    assert [text.rpartition("=")[2] for text in told] == ["2", "1"]
    assert all("Tried to allocate 3 GiB" in text for text in told)
    assert summary["failed_blocks"] == []
    assert (raster(tmp_path / "toy.classes.tif") < 4).all()


def test_a_device_too_small_for_one_patch_says_what_to_do(tmp_path):
    network = Small(3, 4, 3, padding=1)
    network.most = 0
    with pytest.raises(DeviceMemoryError, match=r"one patch at a time .* smaller inference.block_size than 32"):
        toy_prediction(tmp_path, model=toy_segmenter(network=network)).run()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_full_is_refused_before_the_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("foveate.inference.store.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputWriteError, match="but the results need at least"):
        toy_prediction(tmp_path).run()
    usage.free, told = 50_000, []
    toy_prediction(tmp_path).run(Session(tell=told.append))
    assert "may need up to" in told[0]


def test_a_disk_that_gets_full_while_results_are_written_costs_no_block(tmp_path, monkeypatch):
    def full(blocks, spec):
        raise OutputWriteError("could not write toy.classes.tif: the disk is full")

    with monkeypatch.context() as patched, pytest.raises(OutputWriteError, match=r"full; all blocks .* --resume"):
        patched.setattr("foveate.inference.assemble.write_outputs", full)
        toy_prediction(tmp_path).run()
    assert all_stored(tmp_path)
    assert toy_prediction(tmp_path).run(resume=True)["resumed_blocks"] == 35


def test_blocks_left_out_are_those_that_cannot_be_read(monkeypatch):
    monkeypatch.setattr(Torn, "torn", NOWHERE)
    monkeypatch.setattr(Torn, "hiccups", 1)
    monkeypatch.setattr(pixel_source, "PAUSES", ())
    left_out, image = [], toy_source(toy_pixels(64, 64), reader=Torn)
    blocks = BlockGrid(Size(64, 64), 32)
    finished = finished_blocks(
        toy_segmenter().eval(),
        image,
        InferenceConfig(batch_size=4),
        blocks=blocks,
        on_unreadable=lambda block, error: left_out.append((block, str(error))),
    )
    assert [done.window for done in finished] == list(blocks)[1:]
    assert left_out == [(blocks[0], "the network is down")]


class Overflowing(nn.Module):
    """Gives what is no number where the image is bright, as weights that diverged or numbers too large do."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, patches):
        return torch.where(patches.mean(1, keepdim=True) > 0.99, self.value, patches[:, [0, 1, 2, 0]])


@pytest.mark.parametrize("planner", ["per_target", "pyramid"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_network_that_gives_no_numbers_is_refused_and_no_class_is_made_of_them(tmp_path, planner, value):
    pixels = toy_pixels()
    config, model = CONFIG.model_copy(update={"planner": planner}), toy_segmenter(network=Overflowing(value))
    toy_prediction(tmp_path / "good", config=config, source=toy_source(pixels * 0.9), model=model).run()
    pixels[:, 100:120, 150:170] = 1
    prediction = toy_prediction(tmp_path / "bad", config=config, source=toy_source(pixels), model=model)
    with pytest.raises(NetworkError, match="values that are not numbers"):
        prediction.run()
    assert not (tmp_path / "bad/toy.classes.tif").exists()
