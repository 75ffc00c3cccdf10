import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.geometry import Size, Window
from foveate.looks.pyramid import covered, per_cell
from foveate.patches.extraction import Windows


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_the_pixels_of_the_supports_are_covered_and_no_others(top, left, height, width, side, seed):
    places = np.random.default_rng(seed).integers(0, 6, (5, 2)) * side
    block = Window(top, left, height, width)
    whole = np.zeros((250, 250), bool)
    for row, col in places:
        whole[row : row + side, col : col + side] = True
    found = covered(Windows(*torch.from_numpy(places).T, side), block)
    assert np.array_equal(found.numpy(), whole[top : top + height, left : left + width])


def test_cells_have_the_mean_of_their_pixels_and_those_cut_off_too():
    size = Size(5, 7)
    weights = torch.zeros(2, size.height, size.width)
    weights[0, :, :4] = 3
    weights[1] = 1
    cells = per_cell(weights, 4)
    assert cells.shape == (2, 2, 2)
    torch.testing.assert_close(cells[0], torch.tensor([[0.75, 0.0], [0.75, 0.0]]))
    torch.testing.assert_close(cells.sum(0), torch.ones(2, 2))
