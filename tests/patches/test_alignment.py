import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import GeometryError
from foveate.networks.cascade import Context
from foveate.patches.scales import chosen_crops, crop_central, importance_window, resize_logits, weighted_crops


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


@pytest.mark.parametrize("one_hot", [True, False])
def test_crops_are_the_weighted_sum_over_the_fields_of_view(one_hot):
    output, views = torch.rand(5, 2, 8, 8), (8, 16, 32)
    weights = torch.eye(3)[[0, 2, 1, 2, 0]] if one_hot else torch.rand(5, 3).softmax(-1)
    rows = []
    for one, shares in zip(output, weights, strict=True):
        rows.append(sum(w * crop_central(one[None], 8 / view, 8)[0] for w, view in zip(shares, views, strict=True)))
    expected = torch.stack(rows)
    torch.testing.assert_close(chosen_crops(output, weights, views, 8), expected)
    torch.testing.assert_close(weighted_crops(output, weights, views, 8, range(3)), expected)
    with pytest.raises(GeometryError, match="each row must sum to one"):
        chosen_crops(output, torch.zeros(5, 3), views, 8)


@pytest.mark.parametrize("side", [4, 16])
def test_resize_keeps_the_mean(side):
    output = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(resize_logits(output, side).mean(), output.mean(), atol=0.02, rtol=0)


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


def ramp(side, view):
    """A map (1, 2, side, side) over a window of `view` pixels that says where each of its pixels' centres is."""
    centres = (torch.arange(side) + 0.5) * view / side
    return torch.stack([centres[:, None].expand(side, side), centres.expand(side, side)])[None]


@pytest.mark.parametrize("corner", [(0, 0), (100, 37), (192, 192), (64, 128)])
@pytest.mark.parametrize("out", [2, 4, 8, 16, 64])
@pytest.mark.parametrize("side", [16, 32, 64])
def test_the_crop_of_a_ramp_has_the_value_of_every_pixels_centre(corner, out, side):
    """Inside, where the halo knows what is around the window; at the wide window's rim the outermost value goes on."""
    view, wide = 64, 256
    context = Context(ramp(side, wide), torch.tensor([corner]) / wide, view / wide)
    wanted = torch.stack(
        torch.meshgrid(*((torch.arange(out) + 0.5) * view / out + start for start in corner), indexing="ij")
    )
    rim = wide / side / 2
    inside = ((wanted > rim + view / out) & (wanted < wide - rim - view / out)).all(dim=0)
    torch.testing.assert_close(context.over(out, out)[0][:, inside], wanted[:, inside], rtol=0, atol=1e-3)
    assert inside.any() or out < 4


def test_each_window_gets_its_own_part():
    seen = torch.cat([ramp(32, 256), 1000 + ramp(32, 256)])
    corners = torch.tensor([[32, 64], [128, 96]]) / 256
    both = Context(seen, corners, 0.25).over(4, 4)
    for i in range(2):
        assert torch.equal(both[i : i + 1], Context(seen[i : i + 1], corners[i : i + 1], 0.25).over(4, 4))


def test_a_coarse_pixel_gets_the_mean_of_all_that_lies_in_it():
    seen = torch.rand(1, 1, 64, 64)
    found = Context(seen, torch.tensor([[0.25, 0.5]]), 0.25).over(2, 2)
    torch.testing.assert_close(found, torch.nn.functional.avg_pool2d(seen[..., 16:32, 32:48], 8))


def test_where_context_is_dropped_there_is_none():
    context = Context(torch.rand(2, 1, 8, 8), torch.zeros(2, 2), 0.5, torch.tensor([1.0, 0.0]))
    found = context.over(4, 4)
    assert found[0].min() > 0
    assert not found[1].any()
