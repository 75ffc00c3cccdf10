"""Predictions of a part of an image: what is inside is what it was, what is outside costs nothing."""

import json

import numpy as np
import pytest
from predict_toys import (
    AREA,
    CONFIG,
    HOLE,
    IMAGE,
    RING,
    final_bytes,
    raster,
    toy_pixels,
    toy_prediction,
    toy_segmenter,
    toy_source,
)

from foveate.data.area import LEFT_OUT, Area, Polygons, TissueMask
from foveate.data.readers import open_image
from foveate.data.readers.array import ArrayReader
from foveate.errors import ConfigError, ImageReadError, StoppedError
from foveate.geometry import Window
from foveate.inference.memory import MemoryModel
from foveate.inference.plan import looks_of
from foveate.inference.session import Session
from foveate.looks.pyramid import PyramidGrid, passes_allowed, roots_of

pytestmark = pytest.mark.usefixtures("one_thread")
INSIDE = AREA.inside(Window.of(IMAGE))


def config(**changes):
    return CONFIG.model_copy(update={"outputs": ("classes", "confidence", "probabilities", "foveation"), **changes})


def summary_of(folder):
    return json.loads((folder / "toy.json").read_text())


def layers(folder):
    return [raster(folder / f"toy.{name}.tif") for name in ("classes", "confidence", "probabilities")]


@pytest.mark.parametrize("changes", [{}, {"planner": "pyramid", "budget": "all"}])
def test_inside_the_area_nothing_changes(tmp_path, changes):
    whole = toy_prediction(tmp_path / "whole", config=config(**changes)).run()
    part = toy_prediction(tmp_path / "part", config=config(**changes), area=AREA).run()
    for before, after in zip(layers(tmp_path / "whole"), layers(tmp_path / "part"), strict=True):
        assert np.array_equal(after, np.where(INSIDE, before, 255))
    assert part["share_looked_at"] == pytest.approx(INSIDE.mean())
    assert part["megapixels"] == pytest.approx(INSIDE.sum() / 1e6)
    assert sum(part["class_pixels"].values()) == INSIDE.sum()
    assert (whole["share_looked_at"], whole["skipped_passes"]) == (1, 0)
    assert part["passes"] < whole["passes"] / 2
    if "planner" not in changes:
        assert part["passes"] + part["skipped_passes"] == whole["passes"]


def test_the_foveation_map_is_known_where_a_cell_was_looked_at(tmp_path):
    toy_prediction(tmp_path / "whole").run()
    toy_prediction(tmp_path / "part", area=AREA).run()
    before, after = (raster(tmp_path / f"{name}/toy.fov.tif") for name in ("whole", "part"))
    met = AREA.squares(8)
    assert np.array_equal(np.isfinite(after), met)
    assert np.array_equal(after[met], before[met])


@pytest.mark.parametrize("changes", [{}, {"planner": "pyramid", "budget": "fixed"}, {"planner": "pyramid"}])
def test_blocks_of_any_size_give_the_same(tmp_path, changes):
    found = []
    for side in (32, 64, 208):
        toy_prediction(tmp_path / str(side), config=config(block_size=side, **changes), area=AREA).run()
        found.append(raster(tmp_path / str(side) / "toy.classes.tif"))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


class Noting(ArrayReader):
    """Notes what is read at full resolution."""

    seen: list[Window] = []  # noqa: RUF012

    def read(self, window, size=None):
        Noting.seen.append(window)
        return super().read(window, size)


def test_patches_outside_the_area_are_not_read(tmp_path):
    corner = Area(IMAGE, Polygons([(np.array([[100, 80], [110, 80], [110, 90], [100, 80]], float),)]))
    prediction = toy_prediction(tmp_path, source=toy_source(reader=Noting), area=corner)
    Noting.seen.clear()
    summary = prediction.run()
    patches = [window for window in Noting.seen if max(window.height, window.width) < 128]
    around = Window(80 - 40, 100 - 40, 90, 90)
    assert patches
    assert all(around.contains(window) for window in patches)
    assert summary["passes"] < 10


@pytest.mark.parametrize("budget", ["fixed", 2000.0, 9000.0])
def test_a_budget_is_spent_inside(tmp_path, budget):
    # One block, so that no window is passed twice.
    wanted = config(planner="pyramid", budget=budget, block_size=208)
    prediction = toy_prediction(tmp_path, config=wanted, area=AREA)
    grid = PyramidGrid.of(IMAGE, looks_of(prediction.config, prediction.segmenter.views_passed))
    roots = roots_of(grid, AREA)
    allowed = passes_allowed(budget, roots, IMAGE, prediction.segmenter.scales.target, AREA)
    assert len(roots.top) <= prediction.run()["passes"] <= allowed


def test_an_interrupted_run_is_gone_on_with_and_another_region_refused(tmp_path):
    toy_prediction(tmp_path / "whole", area=AREA).run()
    left = [5]

    def stop():
        left[0] -= 1
        return left[0] <= 0

    with pytest.raises(StoppedError):
        toy_prediction(tmp_path / "part", area=AREA).run(Session(should_stop=stop))
    moved = Area(IMAGE, Polygons([(RING + 1, HOLE)]))
    with pytest.raises(ConfigError, match=r"area\.region was '[0-9a-f]+', is now '[0-9a-f]+'"):
        toy_prediction(tmp_path / "part", area=moved).run(resume=True)
    with pytest.raises(ConfigError, match=r"area\.region was '[0-9a-f]+', is now None"):
        toy_prediction(tmp_path / "part").run(resume=True)
    assert toy_prediction(tmp_path / "part", area=AREA).run(resume=True)["resumed_blocks"] == 5
    assert final_bytes(tmp_path / "part") == final_bytes(tmp_path / "whole")
    assert summary_of(tmp_path / "part")["skipped_passes"] == summary_of(tmp_path / "whole")["skipped_passes"]


def test_glass_is_left_out(tmp_path):
    mask = np.zeros((15, 20), bool)
    mask[4:12, 3:15] = True
    tissue = TissueMask(mask, IMAGE)
    toy_prediction(tmp_path, config=config(), area=Area(IMAGE, AREA.region, tissue=tissue)).run()
    why = Area(IMAGE, AREA.region, tissue=tissue).left_out(Window.of(IMAGE))
    inside, glass = why == 0, why == 1 + LEFT_OUT.index("glass")
    assert glass.any()
    assert np.array_equal(INSIDE, inside | glass)
    assert np.array_equal(layers(tmp_path)[0] == 255, ~inside)


class Holed(ArrayReader):
    """An image that holds no data in a part."""

    masked = True

    def valid(self, window):
        result = super().valid(window)
        hole = Window(0, 0, 100, 90).intersection(window)
        if hole is not None:
            result[hole.within(window)] = False
        return result


def test_pixels_without_data_get_no_class(tmp_path):
    pixels = toy_pixels()
    source = toy_source(pixels, reader=Holed)
    summary = toy_prediction(tmp_path / "part", source=source, area=Area(IMAGE, data=source.reader)).run()
    toy_prediction(tmp_path / "whole", source=toy_source(pixels)).run()
    expected, found = (raster(tmp_path / f"{name}/toy.classes.tif") for name in ("whole", "part"))
    expected[:100, :90] = 255
    assert np.array_equal(found, expected)
    assert summary["skipped_passes"] > 0
    assert summary["failed_blocks"] == []


@pytest.mark.parametrize("planner", ["per_target", "pyramid"])
def test_an_area_without_a_pixel_costs_nothing(tmp_path, planner):
    far = Area(IMAGE, Polygons([(RING + 5000,)]))
    summary = toy_prediction(tmp_path, config=config(planner=planner, budget="fixed"), area=far).run()
    assert (summary["passes"], summary["share_looked_at"], summary["passes_per_megapixel"]) == (0, 0, 0)
    assert (raster(tmp_path / "toy.classes.tif") == 255).all()
    assert np.isnan(raster(tmp_path / "toy.fov.tif")).all()


def test_a_torn_mask_costs_the_blocks_around_it(tmp_path, monkeypatch):
    def torn(self, window):
        if window.intersection(Window(100, 100, 5, 5)):
            raise ImageReadError("torn mask")
        return np.ones((window.height, window.width), bool)

    monkeypatch.setattr(Holed, "valid", torn)
    source = toy_source(reader=Holed)
    summary = toy_prediction(tmp_path, source=source, area=Area(IMAGE, data=source.reader)).run()
    # Its own and those whose passes may reach it.
    assert 1 <= len(summary["failed_blocks"]) <= 4
    assert {block["reason"] for block in summary["failed_blocks"]} == {"torn mask"}


def test_the_memory_of_what_is_inside_is_counted():
    model = toy_segmenter()
    plain, limited = (MemoryModel.of(model.eval(), toy_source(), CONFIG, 4, area) for area in (None, AREA))
    assert limited.masks > plain.masks == 0


def test_every_pass_is_drawn_once_whichever_block_it_begins_in(tmp_path):
    """Passes that begin in a block outside the area reach into it from there."""
    found = []
    for side in (32, 208):
        settings = config(block_size=side, overlap=0.5, outputs=("classes", "passes"))
        summary = toy_prediction(tmp_path / str(side), config=settings, area=AREA).run()
        with open_image(tmp_path / str(side) / "toy.passes.tif") as image:
            found.append(image.read(Window.of(image.size)))
        assert (found[-1].max(axis=0) > 0).sum() == summary["passes"]
    assert np.array_equal(*found)
