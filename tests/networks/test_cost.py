import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foveate.errors import NetworkError
from foveate.networks.build import build_network, network_cost


def test_one_convolution_is_counted_by_hand():
    small = network_cost("c1", "u_net", patch_size=32, classes=2, width=4, depth=1)
    large = network_cost("c1", "u_net", patch_size=64, classes=2, width=4, depth=1)
    more = network_cost("c1", "u_net", patch_size=32, classes=5, width=4, depth=1)
    assert large.multiply_adds == 4 * small.multiply_adds
    # The last convolution has 1 x 1 weights from one channel (width // 4), and a bias, per class.
    assert more.multiply_adds - small.multiply_adds == 3 * 32 * 32
    assert more.parameters - small.parameters == 3 * 2


@pytest.mark.parametrize(("architecture", "encoder"), [("ppm_deepsup", "mobilenetv2dilated"), ("segformer", "mit_b0")])
def test_counting_without_memory_is_counting_the_real_network(architecture, encoder):
    cost = network_cost(architecture, encoder, patch_size=64, classes=3, in_channels=4)
    network = build_network(architecture, encoder, classes=3, in_channels=4, weights=None).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 4, 64, 64))
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.multiply_adds == counter.get_total_flops() // 2


def test_a_patch_that_does_not_fit_is_said():
    with pytest.raises(
        NetworkError, match=r"linknet with encoder 'resnet18' takes no patch of 100 px: .*divisible by 32"
    ):
        network_cost("linknet", "resnet18", patch_size=100, classes=2)
