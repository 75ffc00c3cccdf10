import pytest
import torch

from foveate.patches.blending import importance_window


@pytest.mark.parametrize("blending", ["none", "linear", "hann", "gaussian"])
@pytest.mark.parametrize("side", [1, 2, 7, 64])
def test_importance_is_positive_symmetric_and_at_most_one(blending, side):
    window = importance_window(side, blending)
    assert window.shape == (side, side)
    assert (window > 0).all()
    assert window.max() <= 1 + 1e-6
    for same in (window.flip(0), window.flip(1), window.T):
        torch.testing.assert_close(window, same)


@pytest.mark.parametrize("blending", ["linear", "hann"])
def test_half_overlapping_windows_are_a_partition_of_unity(blending):
    window = importance_window(32, blending)
    ramp = window.diagonal().sqrt()
    torch.testing.assert_close(ramp[:16] + ramp[16:], torch.ones(16))
