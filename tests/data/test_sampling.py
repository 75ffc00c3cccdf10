"""Cells are drawn by area and by class, windows of a cascade lie in one another."""

from functools import partial

import numpy as np
import pytest
import torch
from data_toys import data_config, footprint_means, smooth_image, write_data_set
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.datamodule import FoveateDataModule
from foveate.data.label_index import CellSampler, class_weights, index_masks
from foveate.data.locations import (
    LocationSpec,
    Nesting,
    Planned,
    _moved,
    drawn_windows,
    moved_nesting,
    nesting_of,
    windows_as_predicted,
)
from foveate.data.readers import ArrayReader
from foveate.errors import DatasetError
from foveate.geometry import CellGrid, Size, Window
from foveate.patches import ScaleSet
from oracles import mirrored
from toys import labels_of

CELL = 4
SCALES = ScaleSet(8, (8, 16, 64))


def index(*masks):
    return index_masks([lambda m=m: labels_of(ArrayReader(m), 3) for m in masks], 3, CELL)


def draws(sampler, count=2000, cells=2):
    return [sampler.draw(np.random.default_rng([0, i]), cells) for i in range(count)]


@pytest.fixture(scope="module")
def masks():
    small, large = np.zeros((20, 20), np.uint8), np.zeros((40, 60), np.uint8)
    small[:4, :4] = 1  # one cell in each image holds a rare class
    large[-1, -1] = 2
    large[:, :20] = 255
    return small, large


def test_is_a_function_of_the_generator(masks):
    sampler = CellSampler(index(*masks), 0.5)
    for (image, cells), (again, same) in zip(draws(sampler, 20), draws(sampler, 20), strict=True):
        assert image == again
        np.testing.assert_array_equal(cells, same)


def test_by_area(masks):
    drawn = draws(CellSampler(index(*masks), balance=0))
    assert np.mean([image for image, _ in drawn]) == pytest.approx(100 / 125, abs=0.04)  # labelled cells
    columns = np.concatenate([cells[:, 1] for image, cells in drawn if image == 1])
    assert columns.min() == 5  # nothing where all is ignored
    assert np.bincount(columns)[5:] / len(columns) == pytest.approx([0.1] * 10, abs=0.03)


def test_by_class(masks):
    drawn = draws(CellSampler(index(*masks), balance=1))
    # Class 0 is in both images, 1 in the small one only, 2 in the large one only.
    assert np.mean([image for image, _ in drawn]) == pytest.approx(0.5, abs=0.04)
    rare = [[0, 0] in cells.tolist() for image, cells in drawn if image == 0]
    assert np.mean(rare) > 0.6  # either of two cells


def test_class_weights(masks):
    weights = class_weights(["a", "b", "c"], {"a": 0, "c": 0})
    assert weights == [0, 1, 0]
    drawn = draws(CellSampler(index(*masks), 1, weights), 50)
    assert {image for image, _ in drawn} == {0}
    assert {tuple(cell) for _, cells in drawn for cell in cells} == {(0, 0)}


def test_weights_of_absent_classes_fall_back_to_area():
    mask = np.ones((20, 20), np.uint8)
    drawn = draws(CellSampler(index(mask), 1, [1, 0, 1]), 100)
    assert len({tuple(cell) for _, cells in drawn for cell in cells}) == 25


def test_few_labelled_cells_are_found():
    mask = np.full((400, 400), 255, np.uint8)
    mask[200, 200] = 1
    assert {tuple(cell) for _, cells in draws(CellSampler(index(mask), 0), 5) for cell in cells} == {(50, 50)}


def test_nothing_to_learn():
    with pytest.raises(DatasetError, match="nothing to learn"):
        CellSampler(index(np.full((9, 9), 255, np.uint8)), 0.5)


def draw(rng, grid, inside):
    """A cell in a window, or anywhere."""
    area = Window.of(grid.image) if inside is None else inside.intersection(Window.of(grid.image))
    row, col = rng.integers(area.top, area.bottom), rng.integers(area.left, area.right)
    return grid.window(int(row) // grid.cell, int(col) // grid.cell)


@given(st.integers(0, 2**31), st.integers(5, 200), st.integers(5, 200), st.integers(1, 4), st.integers(0, 2), st.data())
def test_every_window_lies_in_its_parent(seed, height, width, closer, elsewhere, data):
    grid = CellGrid(Size(height, width), 4)
    cell = grid.window(data.draw(st.integers(0, grid.rows - 1)), data.draw(st.integers(0, grid.cols - 1)))
    rng = np.random.default_rng(seed)
    nesting = Nesting(closer, elsewhere)
    planned = drawn_windows(rng, cell, SCALES, nesting, grid.image, partial(draw, rng, grid))
    assert [one.scale for one in planned] == [2] * (1 + elsewhere) + [1] * closer + [0] * closer
    assert [one.parent for one in planned] == [-1] * (1 + elsewhere) + [0] * closer + [
        1 + elsewhere + i for i in range(closer)
    ]
    for one in planned:
        assert one.window.height == one.window.width == SCALES.fields_of_view[one.scale]
        assert one.parent < 0 or planned[one.parent].window.contains(one.window)
    assert planned[1 + elsewhere + closer].window == SCALES.window(cell, 0)
    if min(height, width) > 64:  # else it cannot be
        for one in planned[: 1 + elsewhere]:
            assert one.window.intersection(Window(-16, -16, height + 32, width + 32)) == one.window


def test_a_wide_window_is_anywhere_around_the_closest():
    grid = CellGrid(Size(300, 300), 4)
    rng = np.random.default_rng(0)
    found = [
        drawn_windows(rng, grid.window(30, 40), SCALES, Nesting(1), grid.image, partial(draw, rng, grid))[0].window
        for _ in range(500)
    ]
    closest = SCALES.window(grid.window(30, 40), 0)
    assert {one.top - closest.top for one in found} == set(range(-56, 1))


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_moved_windows_are_where_the_moved_image_has_them(vertical, horizontal, turns):
    image = torch.rand(1, 64, 64)
    planned = [
        Planned(2, Window(100, 200, 64, 64)),
        Planned(0, Window(105, 230, 8, 8), 0),
        Planned(1, Window(148, 201, 16, 16), 0),
    ]
    before = nesting_of(planned)
    after = moved_nesting(before, vertical, horizontal, turns)
    moved = _moved(image, vertical, horizontal, turns)
    assert after[0].tolist() == [-1, 0, 0, 0]
    for one, (_, top, left, _), (_, there_top, there_left, _) in zip(planned, before, after, strict=True):
        side = one.window.height
        own = _moved(image[:, top : top + side, left : left + side], vertical, horizontal, turns)
        assert torch.equal(own, moved[:, there_top : there_top + side, there_left : there_left + side])


@given(st.integers(0, 40), st.integers(0, 40))
def test_windows_as_predicted_are_tiles_that_nest(row, col):
    cell = CellGrid(Size(170, 170), 4).window(row, col)
    planned = windows_as_predicted(cell, SCALES)
    assert [(one.scale, one.parent) for one in planned] == [(2, -1), (1, 0), (0, 1)]
    assert planned[2].window == SCALES.window(cell, 0)
    for one in planned[1:]:
        assert planned[one.parent].window.contains(one.window)
    if cell.top % 64 in range(4, 56) and cell.left % 64 in range(4, 56):  # what it is centred on lies inside one tile
        assert planned[0].window == Window(cell.top // 64 * 64, cell.left // 64 * 64, 64, 64)


SPEC = LocationSpec(SCALES, 4, 3, (0, 1, 2), window_labels=True, nesting=Nesting(2, 1))


def module(root, spec=SPEC, **options):
    config = data_config(write_data_set(root), split={"val": ["im2"]}, augmentation={"orientations": "none"})
    data = FoveateDataModule(config, spec, steps=3, images_per_step=2, locations_per_image=3, **options)
    data.setup()
    return data


def test_batches_hold_nested_windows_and_their_labels(tmp_path):
    data = module(tmp_path)
    batch = next(iter(data.train_dataloader()))
    assert batch.patches.shape == (6, 6, 3, 8, 8)
    assert batch.window_labels.shape == (6, 6, 8, 8)
    assert batch.nesting.shape == (6, 6, 4)
    assert batch.scales.tolist() == [[2, 2, 1, 1, 0, 0]] * 6
    # A closest window is the part of its parent's that its corner says, at half of the resolution.
    for patches, nesting in zip(batch.patches.float(), batch.nesting, strict=True):
        _, top, left, slack = nesting[4].tolist()
        assert slack == 8
        if top % 2 == left % 2 == 0:
            coarse = patches[2][:, top // 2 : top // 2 + 4, left // 2 : left // 2 + 4]
            fine = torch.nn.functional.avg_pool2d(patches[4], 2)
            torch.testing.assert_close(coarse, fine, rtol=0, atol=1.0)  # rounded to whole numbers each


def test_validation_reads_the_windows_that_prediction_would(tmp_path):
    data = module(tmp_path)
    batch = next(iter(data.val_dataloader()))
    assert batch.scales.tolist() == [[2, 1, 0]] * len(batch.scales)
    image = smooth_image(3, 90, 120, np.uint8, 2)
    cell = CellGrid(Size(90, 120), 4).window(0, 0)
    for one, patch in zip(windows_as_predicted(cell, SCALES), batch.patches[0], strict=True):
        side = one.window.height
        expected = footprint_means(mirrored(image, one.window.top, one.window.left, side, side), 8, 8)
        np.testing.assert_allclose(patch, expected, atol=0.51)


def test_a_look_wider_than_every_image_is_refused(tmp_path):
    spec = LocationSpec(ScaleSet(8, (16, 128)), 4, 3, (0, 1), window_labels=True, nesting=Nesting(1))
    with pytest.raises(DatasetError, match=r"128 px is wider than every training image.*120 px; looks up to 112 px"):
        module(tmp_path, spec)
