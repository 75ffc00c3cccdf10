import numpy as np
import pytest
from data_toys import data_config, write_data_set
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.datasets import ValidationDataset, spread, target_cells
from foveate.data.images import SampleReader
from foveate.data.locations import LocationSpec
from foveate.data.manifest import load_samples
from foveate.geometry import CellGrid, Size, Window
from foveate.patches.scales import ScaleSet


def spec(target, cell):
    return LocationSpec(ScaleSet(4, (target,)), cell, 0, (0,))


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 16), st.integers(1, 6))
def test_targets_cover_the_image(height, width, cell, factor):
    size, target = Size(height, width), max(4, cell * factor)
    grid, seen = CellGrid(size, cell), np.zeros((height, width), bool)
    for row, col in target_cells(size, spec(target, cell)):
        assert row < grid.rows
        assert col < grid.cols
        window = grid.window(row, col).centred(target).intersection(Window.of(size))
        if window:
            seen[window.within(Window.of(size))] = True
    assert seen.all()


def test_targets_tile():
    cells = target_cells(Size(96, 96), spec(24, 8))
    assert cells == [(row, col) for row in (1, 4, 7, 10) for col in (1, 4, 7, 10)]


@given(st.integers(1, 500), st.integers(1, 100))
def test_spread_is_even(total, limit):
    places = spread(total, limit, seed=0)
    assert len(places) == min(total, limit)
    assert len(set(places.tolist())) == len(places)
    assert places.max() < total
    gaps = np.diff(places)
    assert (gaps >= 1).all()
    assert gaps.size == 0 or gaps.max() <= 2 * max(1, total / limit) + 1


def test_items(tmp_path):
    config = data_config(write_data_set(tmp_path))
    samples, wanted = load_samples(config), spec(8, 4)
    sizes = [Size(90, 120)] * 3
    dataset = ValidationDataset(
        samples, sizes, SampleReader(config, wanted), wanted, max_locations=50, batch_size=8, seed=1
    )
    batches = [dataset[i] for i in range(len(dataset))]
    assert sum(len(batch.label) for batch in batches) == 50
    assert max(len(batch.label) for batch in batches) == 8
    images = [item[0][0] for item in dataset._items]
    assert images == sorted(images)
    assert set(images) == {0, 1, 2}
    with pytest.raises(IndexError):
        dataset[len(dataset)]
