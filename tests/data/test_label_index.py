import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.data import label_index
from foveate.data.label_index import LabelIndex, index_labels
from foveate.data.readers import ArrayReader
from foveate.errors import DatasetError
from toys import labels_of

CLASSES = 3


def reader(mask, ignore=255):
    return labels_of(ArrayReader(mask), CLASSES, ignore)


def random_mask(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width), p=[0.5, 0.01, 0.09, 0.4])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 500))
def test_counts_and_cells(height, width, cell, band):
    mask = random_mask(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_index, "_BAND_PIXELS", band)
        found = index_labels(reader(mask), CLASSES, cell)
    assert found.counts.tolist() == [(mask == c).sum() for c in range(CLASSES)]
    assert found.ignored == (mask == 255).sum()
    for row in range(found.grid.rows):
        for col in range(found.grid.cols):
            part = mask[row * cell : (row + 1) * cell, col * cell : (col + 1) * cell]
            assert found.is_labelled(row, col) == (part != 255).any()
            for c in range(CLASSES):
                assert ([row, col] in found.cells[c].tolist()) == (part == c).any()
    assert found.labelled_cells == sum(
        found.is_labelled(r, c) for r in range(found.grid.rows) for c in range(found.grid.cols)
    )


def test_thinned_out_evenly_and_always_alike(monkeypatch):
    mask = np.zeros((400, 400), np.uint8)
    few = index_labels(reader(mask), CLASSES, 2, max_cells=500).cells[0]
    monkeypatch.setattr(label_index, "_BAND_PIXELS", 1)
    again = index_labels(reader(mask), CLASSES, 2, max_cells=500).cells[0]
    np.testing.assert_array_equal(few, again)
    assert few.shape == (500, 2)
    assert len(np.unique(few, axis=0)) == 500
    quarters = np.bincount((few[:, 0] >= 100) * 2 + (few[:, 1] >= 100))
    assert quarters == pytest.approx([125] * 4, abs=45)


def test_many_masks():
    masks = [random_mask(30, 40, seed) for seed in range(6)]
    shares = []
    index = LabelIndex.build([lambda m=m: reader(m) for m in masks], CLASSES, 4, progress=shares.append)
    assert index.pixel_counts.tolist() == [sum((m == c).sum() for m in masks) for c in range(CLASSES)]
    assert [image.ignored for image in index.images] == [(m == 255).sum() for m in masks]
    assert shares == pytest.approx([k / 6 for k in range(1, 7)])


def test_ignore_index_below_255():
    assert index_labels(reader(np.array([[0, 7]], np.uint8), 7), CLASSES, 1).ignored == 1


def test_bad_value_is_found_before_training():
    masks = [random_mask(9, 9), np.full((9, 9), 9, np.uint8)]
    with pytest.raises(DatasetError, match="holds the value 9"):
        LabelIndex.build([lambda m=m: reader(m) for m in masks], CLASSES, 4)
