import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.patches.alignment import crop_central, resize_logits


@given(st.sampled_from([8, 16]), st.sampled_from([8, 16, 24]), st.floats(0.2, 0.95))
def test_a_slope_is_read_at_the_pixel_centres_of_the_target(size, side, fraction):
    """Bilinear reading is exact on a linear image: the value must be the position itself."""
    position = (torch.arange(size) + 0.5) / size - 0.5
    output = position.view(1, 1, 1, -1).expand(1, 1, size, -1)
    expected = ((torch.arange(side) + 0.5) / side - 0.5) * fraction
    inside = expected.abs() <= 0.5 - 0.5 / size
    result = crop_central(output, fraction, side)[0, 0, 0]
    torch.testing.assert_close(result[inside], expected[inside], atol=1e-5, rtol=0)


def test_the_whole_output_at_its_own_size_is_untouched():
    output = torch.rand(2, 3, 8, 8)
    assert crop_central(output, 1, 8) is output


@pytest.mark.parametrize("side", [4, 16])
def test_resize_keeps_the_mean(side):
    output = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(resize_logits(output, side).mean(), output.mean(), atol=0.02, rtol=0)
