import numpy as np
import pytest

from foveate.data.label_index import LabelIndex
from foveate.data.readers import ArrayReader
from foveate.data.sampling import CellSampler, class_weights
from foveate.errors import DatasetError
from toys import labels_of

CELL = 4


def index(*masks):
    return LabelIndex.build([lambda m=m: labels_of(ArrayReader(m), 3) for m in masks], 3, CELL)


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
