import torch

from foveate.networks.parts import PolicyNetwork


def test_a_margin_in_gives_the_inside_out():
    policy = PolicyNetwork(3, 4)
    assert policy.margin == 3
    assert policy(torch.rand(2, 3, 9 + 2 * 3, 5 + 2 * 3)).shape == (2, 4, 9, 5)


def test_the_default_is_the_papers_network():
    convolutions = [m for m in PolicyNetwork(3, 5).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (3, 40, (3, 3)),
        (40, 40, (3, 3)),
        (40, 5, (3, 3)),
    ]


def test_crops_decide_as_the_whole_overview_does():
    policy = PolicyNetwork(3, 3).eval()
    m = policy.margin
    overview = torch.rand(1, 3, 20 + 2 * m, 20 + 2 * m)
    whole = policy(overview)
    for row, col in [(0, 0), (7, 13), (19, 19)]:
        crop = overview[..., row : row + 2 * m + 1, col : col + 2 * m + 1]
        torch.testing.assert_close(policy(crop)[..., 0, 0], whole[..., row, col])


def test_the_receptive_field_ends_at_the_margin():
    policy = PolicyNetwork(1, 2).eval()
    overview = torch.rand(1, 1, 27, 27, requires_grad=True)
    policy(overview)[0, 0, 10, 10].backward()
    seen = overview.grad[0, 0] != 0
    assert seen.any(dim=0).nonzero()[[0, -1], 0].tolist() == [10, 16]
